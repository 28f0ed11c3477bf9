"""Looks for motions by what happens in them: `python solution/search.py "two people shake hands"`.

Prints the best of them and writes a page that shows how they move. The gallery is the training motions, each ranked by a model that
has not seen it; with `--gallery test` all candidates of the test; with `--gallery DIR` the .npy motions of a folder.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import SearchConfig
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    config = cli.parse(SearchConfig, args, __doc__)
    demo.make_missing(args, argv, runs=True)
    from motret.report import (
        browser,
        page,
        search,  # torch is slow to import: --help and a wrong flag answer without it
    )

    run, found = search.search(config)
    report = browser.page_of_search(config.text, found, config.top)
    print(f"{found.gallery}, ranked by {found.model}{'. ' + found.note if found.note else ''}")
    for candidate in report.queries[0].candidates:
        captions = f"  {' / '.join(candidate.captions)}" if candidate.captions else ""
        print(f"{candidate.rank:3d}  {candidate.score:6.2f}  {candidate.motion}{captions}")
    out = config.out or run.output_dir / "report" / "search.html"
    page.write_page(out, report)
    print(f"page {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
