"""Masks, entropy-coded given the weights that they belong to.

Masks learnt from scores that start at the weights' magnitudes follow those magnitudes, and whoever
decodes a mask has the frozen weights at hand. So the weights of a matrix are cut into intervals of
magnitude, by the upper 16 bits of their float32 numbers (no arithmetic that could round), as many
as pay for themselves: one if the magnitude says nothing. Intervals of all matrices that keep about
the same share are a class, and each class is one stream of bits, coded in the shorter of two ways:

- the bits, eight to a byte (best near one half);
- the gaps between the rarer symbol, a byte each; 255 stands for 255 others and no symbol. In wide
  streams (very rare symbols) the bytes count gaps of 256, and what is left over follows as it is.

The bytes are Huffman-coded with zlib. Code (integers little-endian):

    <I classes> <I bytes of the table>
    by class: <B kind of stream> <Q weights> <Q bytes of the stream>
    table, deflated: by matrix (sorted by name) <B intervals>, <H lowest key> of each but the
        first, <B class> of each
    streams

The bits of a class stand in the order of matrices, blocks of 65,536 weights (row-major), intervals,
weights. The code has no checksum: its container must have one over the masks.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ArtifactError

__all__ = ["decode_masks", "encode_masks", "entropy_bound_bits"]

Bits = NDArray[np.bool_]
Counts = NDArray[np.int64]
Keys = NDArray[np.uint16]
Floats = NDArray[np.float32]

_HEADER = struct.Struct("<II")
_CLASS_HEADER = struct.Struct("<BQQ")
_BLOCK = 1 << 16
_BITS, _GAPS, _GAPS_OF_ZEROS, _WIDE_GAPS, _WIDE_GAPS_OF_ZEROS = range(5)
_ESCAPE = 255
_FINE_INTERVALS = 256
_INTERVALS = 8  # more make decoding slower, and the code hardly smaller
_CLASSES = 64
# What an entry of the table and a stream of its own cost about: below that, intervals are merged.
_INTERVAL_BITS = 64
_CLASS_BITS = 800


@dataclass(frozen=True)
class _Partition:
    """How one matrix is cut by magnitude.

    Attributes:
        lowest: smallest key of each interval but the first, rising.
        classes: the class of each interval.
    """

    lowest: Keys
    classes: Sequence[int]


def entropy_bound_bits(sizes: Sequence[int], kept: Sequence[int]) -> float:
    """Shannon entropy of masks of which only each matrix's density is known, in bits.

    Args:
        sizes: weights of each matrix.
        kept: how many of them it keeps.
    """
    return float(_entropy_bits(np.array(sizes, np.int64), np.array(kept, np.int64)).sum())


def encode_masks(masks: Mapping[str, Bits], weights: Mapping[str, Floats]) -> bytes:
    """Code masks given the frozen weights; the same input gives the same bytes.

    Args:
        masks: parameter name -> mask of the weight's shape.
        weights: parameter name -> the frozen weight, float32; the same names.
    """
    partitions = _partition(masks, weights)
    streams: dict[int, list[Bits]] = {}
    for name, partition in partitions.items():
        mask = masks[name].reshape(-1)
        for block, order, sizes in _blocks(weights[name], partition):
            start = 0
            bits = mask[block][order]
            for index, size in zip(partition.classes, sizes, strict=True):
                streams.setdefault(index, []).append(bits[start : start + size])
                start += size
    table = _deflate(b"".join(map(_table_entry, partitions.values())))
    headers, coded = [], []
    for index in sorted(streams):
        bits = np.concatenate(streams[index])
        kind, stream = _encode_stream(bits)
        headers.append(_CLASS_HEADER.pack(kind, bits.size, len(stream)))
        coded.append(stream)
    return b"".join([_HEADER.pack(len(headers), len(table)), *headers, table, *coded])


def decode_masks(code: bytes, weights: Mapping[str, Floats], *, source: Path) -> dict[str, Bits]:
    """Decode masks given the frozen weights.

    Memory and time are bounded by the sizes of ``weights``, whatever the code says. A code that was
    changed may give other masks: compare them with a checksum.

    Args:
        code: what :func:`encode_masks` gave.
        weights: parameter name -> the frozen weight, float32.
        source: the file that the code came from, for messages.

    Returns:
        parameter name -> mask of the weight's shape.

    Raises:
        ArtifactError: the code is truncated, corrupt, or belongs to other weights.
    """
    try:
        return _decode(memoryview(code), weights)
    except (struct.error, zlib.error, IndexError, ValueError) as error:
        raise ArtifactError(
            f"{source} is corrupt: its masks cannot be decoded ({error}); copy it again"
        ) from error


def _decode(code: memoryview, weights: Mapping[str, Floats]) -> dict[str, Bits]:
    total = sum(weight.size for weight in weights.values())
    count, table_bytes = _HEADER.unpack_from(code)
    if count > _CLASSES:
        raise ValueError(f"{count} classes")
    headers = [
        _CLASS_HEADER.unpack_from(code, _HEADER.size + index * _CLASS_HEADER.size)
        for index in range(count)
    ]
    start = _HEADER.size + count * _CLASS_HEADER.size
    if sum(size for _, size, _ in headers) != total:
        raise ValueError("its streams are not as long as the weights")
    if len(code) != start + table_bytes + sum(length for _, _, length in headers):
        raise ValueError("its parts are not as long as it says")
    partitions = _read_table(code[start : start + table_bytes], sorted(weights), count)
    start += table_bytes
    streams = []
    for kind, size, length in headers:
        streams.append(_decode_stream(kind, code[start : start + length], size))
        start += length
    used = [0] * count
    masks = {}
    for name, partition in partitions.items():
        mask = np.empty(weights[name].size, np.bool_)
        for block, order, sizes in _blocks(weights[name], partition):
            pieces = []
            for index, size in zip(partition.classes, sizes, strict=True):
                pieces.append(streams[index][used[index] : used[index] + size])
                used[index] += size
            bits = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            if bits.size != sum(sizes):
                raise ValueError("a stream is too short")
            mask[block][order] = bits
        masks[name] = mask.reshape(weights[name].shape)
    return masks


def _blocks(
    weight: Floats, partition: _Partition
) -> Iterator[tuple[slice, NDArray[np.intp] | slice, list[int]]]:
    """A matrix in blocks that caches hold.

    Yields:
        where the block is in the flat matrix; its weights' order by interval (stable); how many are
        in each interval.
    """
    flat = weight.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, min(start + _BLOCK, flat.size))
        size = block.stop - block.start
        if not partition.lowest.size:
            yield block, slice(None), [size]
            continue
        keys = _keys(flat[block])
        interval = np.zeros(size, np.uint8)
        above = [size]  # weights from each interval on
        for lowest in partition.lowest:
            reached = keys >= lowest
            interval += reached
            above.append(int(np.count_nonzero(reached)))
        sizes = [here - higher for here, higher in zip(above, [*above[1:], 0], strict=True)]
        yield block, np.argsort(interval, kind="stable"), sizes


def _keys(weights: Floats) -> Keys:
    """Exponent and upper mantissa bits: integers that rise with the magnitude."""
    keys: Keys = (weights.view(np.uint32) >> 16).astype(np.uint16) & np.uint16(0x7FFF)
    return keys


# --- which intervals and classes


def _partition(masks: Mapping[str, Bits], weights: Mapping[str, Floats]) -> dict[str, _Partition]:
    """Cut each matrix where it pays, and give intervals of about the same density one class."""
    lowest: dict[str, Keys] = {}
    sizes, kept = [], []
    for name in sorted(masks):
        keys = _keys(weights[name].reshape(-1))
        counts = np.bincount(keys)
        ones = np.bincount(keys[masks[name].reshape(-1)], minlength=counts.size)
        present = np.flatnonzero(counts)
        quantile = (np.cumsum(counts[present]) - 1) * _FINE_INTERVALS // keys.size
        first = present[np.diff(quantile, prepend=-1) > 0]
        size, one = np.add.reduceat(counts, first), np.add.reduceat(ones, first)
        starts = _merge_neighbours(size, one, at_most=_INTERVALS, cost_bits=_INTERVAL_BITS)
        lowest[name] = first[starts][1:].astype(np.uint16)
        sizes.append(np.add.reduceat(size, starts))
        kept.append(np.add.reduceat(one, starts))
    classes = iter(_classes(np.concatenate(sizes), np.concatenate(kept)) if sizes else [])
    return {
        name: _Partition(keys, [next(classes) for _ in range(keys.size + 1)])
        for name, keys in lowest.items()
    }


def _classes(sizes: Counts, kept: Counts) -> list[int]:
    """The class of each interval, numbered by density."""
    order = np.argsort(kept / sizes, kind="stable")
    starts = _merge_neighbours(sizes[order], kept[order], at_most=_CLASSES, cost_bits=_CLASS_BITS)
    classes = np.empty(sizes.size, np.int64)
    classes[order] = np.searchsorted(starts, np.arange(sizes.size), side="right") - 1
    return [int(index) for index in classes]


def _merge_neighbours(
    sizes: Counts, kept: Counts, *, at_most: int, cost_bits: float
) -> NDArray[np.intp]:
    """Merge neighbours as long as that costs few bits, the cheapest first.

    Args:
        sizes: weights of each group.
        kept: how many of them are kept.
        at_most: groups that may be left.
        cost_bits: what a group of its own costs.

    Returns:
        index of the first of the old groups in each new one.
    """
    starts, sizes, kept = np.arange(sizes.size), sizes.copy(), kept.copy()
    bits = _entropy_bits(sizes, kept)
    while starts.size > 1:
        pairs = sizes[:-1] + sizes[1:], kept[:-1] + kept[1:]
        merged = _entropy_bits(*pairs)
        loss = merged - bits[:-1] - bits[1:]
        best = int(np.argmin(loss))
        if loss[best] >= cost_bits and starts.size <= at_most:
            break
        for array, value in ((sizes, pairs[0]), (kept, pairs[1]), (bits, merged)):
            array[best + 1] = value[best]
        starts, sizes, kept, bits = (
            np.delete(starts, best + 1),
            np.delete(sizes, best),
            np.delete(kept, best),
            np.delete(bits, best),
        )
    return starts


def _entropy_bits(sizes: Counts, kept: Counts) -> NDArray[np.float64]:
    """By group: its size times the entropy of its density, in bits."""
    bits = np.zeros(sizes.size)
    for part in (kept, sizes - kept):
        some = part > 0
        bits[some] += part[some] * np.log2(sizes[some] / part[some])
    return bits


def _table_entry(partition: _Partition) -> bytes:
    lowest = partition.lowest.astype("<u2").tobytes()
    return bytes([len(partition.classes)]) + lowest + bytes(partition.classes)


def _read_table(code: memoryview, names: Sequence[str], classes: int) -> dict[str, _Partition]:
    table = _inflate(code, len(names) * 3 * _INTERVALS)[0]
    partitions = {}
    start = 0
    for name in names:
        count = table[start]
        end = start + 3 * count - 1
        if not 0 < count <= _INTERVALS or end > len(table):
            raise ValueError(f"{name} has {count} intervals")
        lowest = np.frombuffer(table, "<u2", count - 1, start + 1).astype(np.uint16)
        indices = list(table[end - count : end])
        if (np.diff(lowest.astype(np.int64)) <= 0).any() or max(indices) >= classes:
            raise ValueError(f"the intervals of {name} are wrong")
        partitions[name] = _Partition(lowest, indices)
        start = end
    if start != len(table):
        raise ValueError("its table is too long")
    return partitions


# --- streams


def _encode_stream(bits: Bits) -> tuple[int, bytes]:
    ones = int(np.count_nonzero(bits))
    rare = min(ones, bits.size - ones)
    if 4 * rare > bits.size:
        return _BITS, _deflate(np.packbits(bits).tobytes())
    zeros = 2 * ones > bits.size
    gaps = np.diff(np.flatnonzero(~bits if zeros else bits), prepend=-1) - 1
    if 256 * rare > bits.size:
        return _GAPS_OF_ZEROS if zeros else _GAPS, _deflate(_with_escapes(gaps))
    low = (gaps & 0xFF).astype(np.uint8).tobytes()
    kind = _WIDE_GAPS_OF_ZEROS if zeros else _WIDE_GAPS
    return kind, _deflate(_with_escapes(gaps >> 8)) + low


def _with_escapes(values: Counts) -> bytes:
    """Each value as a byte after as many escapes as it has times 255."""
    ends = np.cumsum(values // _ESCAPE + 1)
    coded = np.full(int(ends[-1]) if ends.size else 0, _ESCAPE, np.uint8)
    coded[ends - 1] = values % _ESCAPE
    return coded.tobytes()


def _decode_stream(kind: int, code: memoryview, size: int) -> Bits:
    """The ``size`` bits of a stream."""
    if kind == _BITS:
        packed, rest = _inflate(code, (size + 7) // 8)
        if len(packed) != (size + 7) // 8 or rest:
            raise ValueError("a stream of bits has another length")
        return np.unpackbits(np.frombuffer(packed, np.uint8), count=size).view(np.bool_)
    if kind not in (_GAPS, _GAPS_OF_ZEROS, _WIDE_GAPS, _WIDE_GAPS_OF_ZEROS):
        raise ValueError(f"a stream of kind {kind}")
    wide = kind in (_WIDE_GAPS, _WIDE_GAPS_OF_ZEROS)
    zeros = kind in (_GAPS_OF_ZEROS, _WIDE_GAPS_OF_ZEROS)
    # Each byte is a symbol, or stands for 255 others at least.
    counts, rest = _inflate(code, size + size // _ESCAPE)
    bits = np.full(size, zeros)
    low = np.frombuffer(rest, np.uint8)
    position = used = 0
    for start in range(0, len(counts), _BLOCK):
        block = np.frombuffer(counts, np.uint8, min(_BLOCK, len(counts) - start), start)
        symbol = block != _ESCAPE
        steps = block.astype(np.int64)
        if wide:
            steps <<= 8
            symbols = int(np.count_nonzero(symbol))
            steps[symbol] += low[used : used + symbols]
            used += symbols
        steps += symbol
        ends = np.cumsum(steps) + position
        position = int(ends[-1])
        if position > size:
            raise ValueError("gaps lead out of a stream")
        bits[ends[symbol] - 1] = not zeros
    if used != low.size:
        raise ValueError("a stream of gaps has another length")
    return bits


def _deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(content) + compressor.flush()


def _inflate(code: memoryview, at_most: int) -> tuple[bytes, bytes]:
    """Inflated bytes, and what follows them in the code."""
    inflater = zlib.decompressobj(-15)
    content = inflater.decompress(code, at_most + 1)  # 0 would be no limit
    if not inflater.eof or len(content) > at_most:
        raise ValueError("a part is truncated or too long")
    return content, inflater.unused_data
