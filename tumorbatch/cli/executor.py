"""The options of commands whose work the engines of a cluster can do."""

import functools
from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--executor",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="`ray`: engines on the nodes of a Ray cluster read the images, and this command writes. "
        "Each engine has --workers cores. See docs/cluster.md.",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT",
        help="Head of the Ray cluster; `auto`: of the one that this machine belongs to.  "
        "[default: auto]",
    ),
    click.option("--engines", type=int, metavar="N", help="Engines on the Ray cluster.  [default: 1]"),
    click.option(
        "--gpus-per-engine",
        type=float,
        metavar="G",
        help="GPUs of each engine; 0.5: two engines share one.  [default: 0]",
    ),
)


def executor(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options; the command gets `cluster`, a `Cluster` or None."""

    @functools.wraps(command)
    def with_cluster(
        *arguments: Any,
        executor: str,
        address: str | None,
        engines: int | None,
        gpus_per_engine: float | None,
        **others: Any,
    ) -> None:
        given = {"address": address, "engines": engines, "gpus": gpus_per_engine}
        given = {name: value for name, value in given.items() if value is not None}
        cluster = None
        if executor == "ray":
            from tumorbatch.errors import ConfigError
            from tumorbatch.ray_cluster import Cluster

            try:
                cluster = Cluster(**given)  # type: ignore[arg-type]
            except ConfigError as error:
                raise click.UsageError(str(error)) from error
        elif given:
            raise click.UsageError(
                "--address, --engines and --gpus-per-engine are about a cluster: give --executor ray, "
                "or leave them out."
            )
        command(*arguments, cluster=cluster, **others)

    with_options = with_cluster
    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options
