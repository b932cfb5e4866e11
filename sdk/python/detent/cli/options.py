"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

AppName: TypeAlias = Annotated[
    str | None,
    typer.Option("--app", metavar="MODULE:ATTR", help="The app. Default: DETENT_APP, else pyproject.toml."),
]
Url: TypeAlias = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The backend. Default: the app's, else DETENT_URL.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Run: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="A run id, or `last` for the newest run.")]
Metadata: TypeAlias = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="May be repeated.")
]
Concurrency: TypeAlias = Annotated[int, typer.Option(metavar="N", min=1, help="How many messages are driven at once.")]
Grace: TypeAlias = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="Seconds a stop waits for steps in progress.")
]
