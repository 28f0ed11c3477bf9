"""Searches for motions by a text.

    python solution/search.py "two people shake hands"
    python solution/search.py "two people shake hands" --gallery test

Prints the best motions and writes a web page that shows them moving. The gallery is the training
motions, each scored by a model that was not trained on it. --gallery test searches all candidates
of the test, --gallery DIR the .npy motions of a folder, or an index that index.py made.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import SearchConfig
from motret.errors import printable
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = demo.with_demo_data(argv)
    config = cli.parse(SearchConfig, args, __doc__)
    if is_demo:
        demo.make_missing(config, needs_runs=True)
    # torch imports slowly, and --help needs none of it
    from motret.report import browser, page
    from motret.search import search

    run, result = search.search(config)
    report = browser.page_of_search(config.text, result, config.top)
    note = f". {result.note}" if result.note else ""
    print(f"{result.gallery}, ranked by {result.model}{note}")
    for candidate in report.queries[0].candidates:
        captions = f"  {' / '.join(candidate.captions)}" if candidate.captions else ""
        line = f"{candidate.rank:3d}  {candidate.score:6.2f}  {candidate.motion}{captions}"
        print(printable(line))
    out = config.out or run.output_dir / "report" / "search.html"
    page.write_page(out, report)
    print(f"page {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
