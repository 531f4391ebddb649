"""Arguments and options that several commands share, and how a result is printed."""

import json
import math
from typing import Annotated, Any

import typer

from schemas.secrets import hide_in, hide_secrets

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ConfigFile = Annotated[str, typer.Argument(help="YAML file; see configs/.")]
Dataset = Annotated[str, typer.Argument(help="Folder of the dataset; any fsspec path.")]
Evaluator = Annotated[str, typer.Option(help="Folder that humo train evaluator wrote; empty: the shipped one.")]
HumanTexts = Annotated[
    list[str] | None,
    typer.Option("--texts", help="What people wrote of the takes, as for humo bench captions; repeat it."),
]
TextSources = Annotated[
    list[str] | None,
    typer.Option("--source", help="Only sentences under this key of the texts, such as kitml; repeat it."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key.inner=value over the config; repeat it.")]


def print_result(value: Any, as_json: bool, text: str) -> None:
    """Print a command's result, as one JSON object or as text; addresses in their public form. JSON has no NaN: null."""
    if as_json:
        print(json.dumps(_without_nan(hide_in(value)), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        print(hide_secrets(text))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
