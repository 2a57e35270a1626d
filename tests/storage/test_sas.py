"""What a shared access signature tells of itself, and which ones are refused at once."""

from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import generate_account_sas, generate_container_sas

from app.storage.sas import clean_sas, read_sas, sas_expires_at, sas_fault

KEY = "a2V5" * 16
EXPIRY = datetime(2031, 5, 17, 10, 30, tzinfo=UTC)
SAS = "sv=2022-11-02&sr=c&sp=rl&se=2031-05-17T10%3A30%3A00Z&sig=abc%2Bdef%3D"


def test_the_sdks_own_tokens_are_read() -> None:
    container = generate_container_sas("acc", "pics", account_key=KEY, permission="rl", expiry=EXPIRY)
    account = generate_account_sas(
        "acc",
        account_key=KEY,
        resource_types="co",
        permission="rl",
        expiry=EXPIRY,
        start=EXPIRY - timedelta(1),
    )
    for token in (container, account, "?" + account):
        assert sas_fault(token) is None
        assert sas_expires_at(token) == EXPIRY
        assert read_sas(token).missing_right() is None


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (KEY, "account_key"),
        ("sv=2022-11-02&sp=rl", "account_key"),
        ("sv=2022-11-02&sp=rl&sig=", "account_key"),
        ("", "account_key"),
        (f"https://acc.blob.core.windows.net/pics?{SAS}", "alone"),
        (SAS.replace("2022-11-02", "2012-02-12"), "sv="),
        (SAS.replace("2022-11-02", "2022-99-02"), "sv="),
        (SAS.replace("sv=2022-11-02&", ""), "sv="),
        (SAS + "\r\nX-Evil: 1", "malformed"),
        (SAS + "\ngone", "malformed"),
        (SAS + "#fragment", "malformed"),
        (SAS + "é", "malformed"),
        ("two words" + SAS, "malformed"),
    ],
)
def test_what_is_no_sas_is_refused_in_words_without_itself(token: str, words: str) -> None:
    fault = sas_fault(token)
    assert fault is not None
    assert words in fault
    assert "abc" not in fault
    assert KEY not in fault


def test_pasted_edges_are_cleaned() -> None:
    assert clean_sas(f"  ?{SAS}&\n") == SAS
    assert sas_fault(f" ?{SAS}\n") is None


@pytest.mark.parametrize(
    ("grants", "right"),
    [
        ("sp=rl&sr=c", None),
        ("sp=racwdl&sr=c", None),
        ("si=policy&sr=c", None),
        ("sp=r&sr=c", "List"),
        ("sp=l&sr=c", "Read"),
        ("sp=r&sr=b", "single blob"),
        ("sp=rl&ss=b&srt=co", None),
        ("sp=rl&ss=bqf&srt=sco", None),
        ("sp=rl&ss=b&srt=o", "Container"),
        ("sp=rl&ss=b&srt=c", "Object"),
        ("sp=rl&ss=q&srt=co", "Blob service"),
    ],
)
def test_a_missing_right_is_known_without_asking(grants: str, right: str | None) -> None:
    missing = read_sas(f"sv=2022-11-02&{grants}&sig=x").missing_right()
    assert (missing is None) if right is None else (missing is not None and right in missing)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2031-05-17T10%3A30%3A00Z", EXPIRY),
        ("2031-05-17T10:30Z", EXPIRY),
        ("2031-05-17T10:30:00.000Z", EXPIRY),
        ("2031-05-17", datetime(2031, 5, 17, tzinfo=UTC)),
        ("soon", None),
        ("", None),
    ],
)
def test_the_end_of_a_sas_is_read_in_every_form(text: str, moment: datetime | None) -> None:
    assert sas_expires_at(f"sv=2022-11-02&se={text}&sig=x") == moment
