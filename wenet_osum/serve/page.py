"""Put the page at /: one component of our own in a frame of gradio's.

The component (page.html, page.css and SCRIPTS) records or takes a file, draws its sound in the
browser and asks /v1/audio/transcriptions of the same server, and while it records
/v1/audio/streams: the page has no limits, queue or temporary files of its own, and never learns a
path. The tasks that can be asked for come
from tasks/, its texts from page.yaml. Fonts are the system's; nothing is loaded from elsewhere, and
nothing is reported.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

# gradio reads them when it is imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio
import yaml
from fastapi import FastAPI

from wenet_osum.serve.settings import MB, Settings
from wenet_osum.text.template import NOBODY

if TYPE_CHECKING:
    from wenet_osum.tasks.base import Field
    from wenet_osum.text.template import Template

HERE = Path(__file__).parent
FONTS = [
    "system-ui",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "sans-serif",
]
MONO = ["ui-monospace", "monospace"]
# In one scope.
SCRIPTS = ("page.js", "page_answer.js", "page_live.js")
# Kinds of fields, in the order in which the page offers them.
KINDS = ("transcript", "label", "reply")
# Parts of gradio that the page does not use.
OFF = ("run_history", "ssr_mode", "pwa", "mcp_server", "enable_monitoring", "show_error")


def mount(
    app: FastAPI, template: Template, settings: Settings, slots: Collection[str] = ()
) -> None:
    """Put the page at / of an application that has the endpoint.

    It asks for the ``slots`` that the model's prompt has.
    """
    with gradio.Blocks(title="wenet_osum", analytics_enabled=False) as blocks:
        gradio.HTML(
            value="",
            html_template=_file("page.html"),
            css_template=_file("page.css"),
            js_on_load="".join(map(_file, SCRIPTS)),
            apply_default_css=False,
            elem_id="osum",
            conf=configuration(template, settings, slots),
        )
    theme = gradio.themes.Base(font=FONTS, font_mono=MONO)
    off = dict.fromkeys(OFF, False)
    gradio.mount_gradio_app(app, blocks, "/", theme=theme, footer_links=[], **off)


def configuration(
    template: Template, settings: Settings, slots: Collection[str] = ()
) -> dict[str, Any]:
    """Return what the component is told.

    That are limits, texts, the fields that can be asked for, the tasks that have a name, and what
    can be said of a recording before.
    """
    named = []
    fields: dict[str, Field] = {}
    for name in template.task_names():
        task = template.task(name)
        tags = [field.tag for field in task.fields]
        named.append({"name": task.name, "tags": tags})
        for field in task.fields:
            fields[field.tag] = field

    shown = sorted(fields.values(), key=lambda field: KINDS.index(field.kind))
    limits = {
        "mb": settings.max_bytes / MB,
        "seconds": settings.max_seconds,
    }
    return {
        "limits": limits,
        "texts": yaml.safe_load(_file("page.yaml")),
        "fields": [_shown(field) for field in shown],
        "tasks": named,
        "slots": [*slots],
    }


def _shown(field: Field) -> dict[str, Any]:
    ask = {}
    for lang, phrase in field.ask.items():
        ask[lang] = field.fill(phrase, NOBODY)
    return {
        "tag": field.tag,
        "kind": field.kind,
        "name": field.name,
        "ask": ask,
    }


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
