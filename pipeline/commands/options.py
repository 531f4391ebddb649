"""Arguments and options that several commands share, and how a result is printed."""

import json
from typing import Annotated, Any

import typer

from schemas.secrets import hide_in, hide_secrets

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ConfigFile = Annotated[str, typer.Argument(help="YAML file; see configs/.")]
Dataset = Annotated[str, typer.Argument(help="Folder of the dataset; any fsspec path.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key.inner=value over the config; repeat it.")]


def print_result(value: Any, as_json: bool, text: str) -> None:
    """Print a command's result, as one JSON object or as text; addresses in their public form."""
    print(json.dumps(hide_in(value), ensure_ascii=False, indent=1) if as_json else hide_secrets(text))
