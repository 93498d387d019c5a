"""Folders and saved configurations of earlier versions are read in the present form."""

from __future__ import annotations

import json

import pytest

from wenet_osum import lookup, migrate
from wenet_osum.models.osum import OsumConfig
from wenet_osum.text.template import read_settings


def test_text_settings_of_version_one_get_their_new_names():
    old = {"labels": {}, "prompts": {}, "join": "string", "lowercase": True}
    assert migrate.text_settings(old) == {"labels": {}, "prompts": {}, "target_tokenization": "whole", "lowercase": True}
    assert old["join"] == "string", "what was handed in stays as it was"


def test_present_settings_pass_and_newer_ones_are_refused(tmp_path):
    now = {"format_version": migrate.FORMAT_VERSION, "target_tokenization": "by_field"}
    assert migrate.text_settings(now) == {"target_tokenization": "by_field"}
    (tmp_path / "text.json").write_text(json.dumps(now | {"format_version": 99}))
    with pytest.raises(ValueError, match="text.json: format_version 99 .* newer wenet_osum"):
        read_settings(tmp_path)


def test_a_config_tells_its_version_and_refuses_newer_ones():
    assert OsumConfig().to_dict()["format_version"] == migrate.FORMAT_VERSION
    with pytest.raises(ValueError, match="config.json: format_version 99"):
        OsumConfig(format_version=99)


def test_a_saved_train_yaml_is_brought_to_the_present_names():
    effects = [{"name": "level", "prob": 0.5}, {"name": "noise", "prob": 0.1}]
    old = {"model": {"init": {"encoder": "exp/1"}, "join": "fields"}, "augment": {"effects": effects}}
    new = migrate.train_yaml(old)
    assert new["model"] == {"init_parts": {"encoder": "exp/1"}, "target_tokenization": "by_field"}
    assert [effect["name"] for effect in new["augment"]["effects"]] == ["gain", "noise"]
    assert "init" in old["model"]


@pytest.mark.parametrize(("old", "new"), migrate.EFFECTS.items())
def test_an_old_effect_is_answered_with_its_new_name(old, new):
    with pytest.raises(ValueError, match=f"effects '{old}' has another name now: write {new}"):
        lookup.load("wenet_osum.dataset.effects", old)
