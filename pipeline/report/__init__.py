"""What people read of benchmarks: the table on the terminal, HTML, Markdown and charts."""

from pipeline.report.terminal import benchmark_table, print_benchmark
from pipeline.report.write import write_benchmark_files, write_report

__all__ = ["benchmark_table", "print_benchmark", "write_benchmark_files", "write_report"]
