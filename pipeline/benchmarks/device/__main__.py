"""`python -m pipeline.benchmarks.device`: the benchmark where the command line's packages are missing."""

import argparse
import json
import sys

from pipeline.benchmarks.device.report import figure_text, report_text
from pipeline.benchmarks.device.run import PARTS, bench
from schemas.errors import UsageError


def main() -> int:
    """Parse the arguments, run, print the report; 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.benchmarks.device", description=bench.__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="Time for all parts together.")
    parser.add_argument("--only", default="", help=f"Some of {', '.join(PARTS)}, separated by commas.")
    parser.add_argument("--out", default="", help="File for the report (JSON); one that exists is continued.")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of text.")
    given = parser.parse_args()
    only = [name.strip() for name in given.only.split(",") if name.strip()]

    def show(part: str, figure: dict[str, object]) -> None:
        print(f"{part}: {figure_text(figure)}", file=sys.stderr, flush=True)

    try:
        content = bench(given.minutes, only=only, out=given.out, device=given.device, on_figure=show)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(content, indent=1) if given.json else report_text(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
