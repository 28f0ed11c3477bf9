"""Builds, adds to and checks an index: vectors of motions for search.py, also of millions.

    python solution/index.py build work/index --motions FOLDER
    python solution/index.py add work/index --motions ANOTHER
    python solution/index.py check work/index

A run embeds each motion once. build makes an index and goes on with one that was not finished; add
takes further motions. Either may be killed at any time, and others may search meanwhile. check
reads all files again. With --ann, for millions of motions, build also makes an approximate index,
and check tells how many of the best motions it finds.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from motret.config import cli
from motret.config.scripts import IndexAddConfig, IndexBuildConfig, IndexCheckConfig
from motret.errors import DataError, printable
from motret.pipeline import demo
from motret.utils.files import format_duration


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = demo.with_demo_data(argv)
    config = cli.parse_one_of({name: kind for name, (kind, _) in COMMANDS.items()}, args, __doc__)
    if is_demo:
        demo.make_missing(config, needs_runs=isinstance(config, IndexBuildConfig))
    run_command = dict(COMMANDS.values())[type(config)]
    run_command(config)
    return 0


def build(config: IndexBuildConfig) -> None:
    # torch imports slowly, and --help needs none of it
    from motret.search import approximate, index_files, run_models

    if config.ann:
        approximate.load_faiss("--ann")
    name = config.run
    if name is None and index_files.is_index(config.index):
        name = index_files.read_manifest(config.index).model.run
    run = run_models.choose_search_run(name, config.out_dir, config.allow_towers)
    folds = [run_models.parse_fold(run, fold) for fold in config.models]
    folds = folds or run_models.finished_models(run)
    models = run_models.RunModels(run, folds, config.machine, config.data)
    new = index_files.Manifest(config.numbers, models.dim, models.identity())
    with index_files.open_writer(config.index, new) as writer:
        add_motions(config, writer, models)
        if config.ann:
            start = time.monotonic()
            form = approximate.build_approximate(writer)
            print(f"approximate index {form} in {format_duration(time.monotonic() - start)}")
    print_search_command(config)


def add(config: IndexAddConfig) -> None:
    from motret.search import index_files, run_models
    from motret.search.search import open_index_models

    with index_files.open_writer(config.index) as writer:
        index = index_files.open_index(config.index)
        name = config.run or index.manifest.model.run
        run = run_models.choose_search_run(name, config.out_dir, config.allow_towers)
        add_motions(config, writer, open_index_models(index, run, config, ()))
        approximate = writer.manifest.approximate
        if approximate and approximate.rows < writer.manifest.rows:
            count = writer.manifest.rows - approximate.rows
            print(f"{count} motions are not in the approximate index and are searched exactly")
    print_search_command(config)


def add_motions(config: IndexAddConfig, writer: Any, models: Any) -> None:
    """Adds the motions of a folder, and prints what was added."""
    from motret.search import build as index_build

    folder = config.motions or config.data.data_dir / "motions"
    start = time.monotonic()
    added = index_build.add_folder(writer, models, folder, config.data, config.machine.jobs)
    seconds = format_duration(time.monotonic() - start)
    before = f", {added.before} were in the index before" if added.before else ""
    print(f"{added.motions} motions of {folder} embedded in {seconds}{before}")
    if added.skipped:
        print(printable(f"left out: {len(added.skipped)}, such as {added.skipped[0]}"))


def print_search_command(config: IndexAddConfig) -> None:
    from motret.search import index_files

    manifest = index_files.read_manifest(config.index)
    print(f"{config.index}: {manifest.rows} motions, {manifest.dim} x {manifest.numbers}")
    print(f'to search: python solution/search.py "two people hug" --gallery {config.index}')


def check(config: IndexCheckConfig) -> None:
    from motret.search import index_files

    index = index_files.open_index(config.index)
    rest = index_files.check_index(index)
    manifest = index.manifest
    print(
        f"{config.index}: whole, {index.rows} motions in {len(index.shards)} shards, "
        f"{manifest.dim} x {manifest.numbers}, embedded by {manifest.model}"
    )
    if rest:
        print(f"{len(rest)} files of a writer that was killed or is at work, such as {rest[0]}")
    if manifest.approximate is not None:
        measure_approximate(config, index)


def measure_approximate(config: IndexCheckConfig, index: Any) -> None:
    """Prints how many of the ten best motions the approximate index finds, and how fast."""
    import numpy as np

    from motret.data import dataset
    from motret.search import approximate, run_models
    from motret.search.exact import search_exactly
    from motret.search.search import open_index_models

    searcher = approximate.ApproximateSearch(index)
    data = config.data
    training = dataset.read_training(data.data_dir, id_width=data.id_width)
    captions = sorted({caption for texts in training.captions for caption in texts})
    if not captions:
        raise DataError(data.data_dir, "holds no caption to search for", "give --data_dir")
    rng = np.random.default_rng(config.machine.seed)
    picked = rng.permutation(len(captions))[: config.queries]
    name = config.run or index.manifest.model.run
    run = run_models.choose_search_run(name, config.out_dir, config.allow_towers)
    models = open_index_models(index, run, config, [captions[number] for number in picked])
    queries, jobs = models.embed_texts(), config.machine.jobs
    start = time.perf_counter()
    exact = search_exactly(index, queries, 10, jobs)
    seconds = (time.perf_counter() - start) / len(queries)
    print(f"{len(queries)} captions, exactly: {1000 * seconds:.1f} ms each")
    for probes in config.probes:
        start = time.perf_counter()
        ranking = searcher.search(queries, 10, probes, jobs)
        seconds = (time.perf_counter() - start) / len(queries)
        recall = approximate.recall(ranking, exact)
        print(f"--probes {probes}: recall@10 {recall:.4f}, {1000 * seconds:.1f} ms each")


COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "build": (IndexBuildConfig, build),
    "add": (IndexAddConfig, add),
    "check": (IndexCheckConfig, check),
}
"""Command -> its settings, and what it does."""


if __name__ == "__main__":
    sys.exit(main())
