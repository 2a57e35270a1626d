"""Sealing: bound to row and field, opened by its key alone, never shown."""

import base64
import os
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.errors import CommandError, CredentialUnreadableError
from app.secrets import Sealer, load_keys
from app.settings import SecretKey, Settings

ROW = uuid4()


def key(key_id: str) -> SecretKey:
    return SecretKey(key_id, os.urandom(32))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_opens_again(text: str) -> None:
    sealer = Sealer([key("k1")])
    assert sealer.unseal(ROW, "f", sealer.seal(ROW, "f", SecretStr(text))).get_secret_value() == text


def test_a_sealed_text_moved_to_another_row_or_field_does_not_open() -> None:
    sealer = Sealer([key("k1")])
    sealed = sealer.seal(ROW, "secret_access_key", SecretStr("s"))
    for row, field in ((uuid4(), "secret_access_key"), (ROW, "session_token")):
        with pytest.raises(CredentialUnreadableError):
            sealer.unseal(row, field, sealed)


@pytest.mark.parametrize(
    "bent", ["", "v1", "v1.k1", "v1.k1.", "v1.k1.!!!", "v2.k1.AAAA", "v1.k9.AAAA", "v1.k1.AAAA"]
)
def test_a_bent_text_is_unreadable_and_no_crash(bent: str) -> None:
    with pytest.raises(CredentialUnreadableError):
        Sealer([key("k1")]).unseal(ROW, "f", bent)


def test_the_newest_key_seals_and_older_ones_still_open() -> None:
    old, new = key("old"), key("new")
    sealed = Sealer([old]).seal(ROW, "f", SecretStr("s"))
    both = Sealer([new, old])
    assert both.unseal(ROW, "f", sealed).get_secret_value() == "s"
    assert not both.is_newest(sealed)
    assert both.is_newest(both.seal(ROW, "f", SecretStr("s")))
    with pytest.raises(CredentialUnreadableError):
        Sealer([new]).unseal(ROW, "f", sealed)


def test_two_seals_of_one_secret_differ() -> None:
    sealer = Sealer([key("k1")])
    assert sealer.seal(ROW, "f", SecretStr("s")) != sealer.seal(ROW, "f", SecretStr("s"))


def test_no_repr_shows_a_key() -> None:
    one = key("k1")
    shown = repr(one) + repr(Sealer([one])) + str(one)
    assert base64.b64encode(one.material).decode() not in shown
    assert repr(one.material) not in shown


def test_an_external_database_needs_keys_of_its_own() -> None:
    settings = Settings.read(_env_file=None, database_url="postgresql://h/d", data_dir="/nonexistent")
    with pytest.raises(CommandError, match="FRAMEGATE_SECRET_KEYS"):
        load_keys(settings)
