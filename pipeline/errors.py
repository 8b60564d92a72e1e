"""Every error that a user can cause or mend, in one tree.

    PipelineError                 one clear line, exit code 2, no traceback
    ├── ConfigurationError        a flag or a recipe key has a value that cannot work
    ├── DataError                 a text file is missing, malformed, or does not fit the run
    ├── ModelError                the base model is missing, unsupported, or another one
    ├── ArtifactError             a run, mask, model or benchmark file is corrupt or too new
    ├── VerificationError         an exported graph disagrees with PyTorch
    └── MachineError              a package, a device or disk space is missing on this machine

A message names the file or the flag, says what was expected and what was found, and ends with
what to do about it.
"""

__all__ = [
    "ArtifactError",
    "ConfigurationError",
    "DataError",
    "MachineError",
    "ModelError",
    "PipelineError",
    "VerificationError",
    "first_line",
]


class PipelineError(Exception):
    """Base of all errors that end a command with one line and exit code 2."""


class ConfigurationError(PipelineError):
    """A flag or a recipe key has a value that cannot work."""


class DataError(PipelineError):
    """A text file is missing, malformed, or does not fit the run."""


class ModelError(PipelineError):
    """The base model is missing, has an unsupported architecture, or is another one."""


class ArtifactError(PipelineError):
    """A file written by this project is missing, corrupt, truncated, or of a newer schema."""


class VerificationError(PipelineError):
    """An exported graph disagrees with the PyTorch model it was made from."""


class MachineError(PipelineError):
    """A package, a device or disk space that the command needs is missing on this machine."""


def first_line(error: BaseException) -> str:
    """The first line of what an error of another library says; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
