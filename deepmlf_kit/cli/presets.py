"""`deepmlf presets`: list the published presets and the kit's own, or print one."""

from typing import Annotated

import typer

from .output import JsonOption, print_json


def command(
    name: Annotated[str | None, typer.Argument(help="Print this preset; without it, list all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the presets, or print one as YAML: every key can be changed by `deepmlf train --set KEY=VALUE`."""
    from ..training.presets import available_presets, load_preset, preset_text

    if name is not None:
        text = preset_text(name)
        if as_json:
            print_json(load_preset(name).to_dict())
        else:
            print(text.rstrip())
        return
    described = {known: load_preset(known).description for known in available_presets()}
    if as_json:
        print_json(described)
    else:
        width = max(map(len, described))
        for known, description in described.items():
            print(f"{known:<{width}}  {description}")
