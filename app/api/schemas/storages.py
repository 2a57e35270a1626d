"""Bodies and answers of storages."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, field_validator

from app.api.schemas.fields import Body, DisplayName, Line, Prose, View, checked, shown_as
from app.api.schemas.sources import PlaceBody, SourceBody, SourcePatch, SourceView, source_view
from app.errors import HealthState
from app.services.storages import Delivery, StorageDraft, StorageView
from app.storage.keys import key_fault

MOST_MANIFESTS = 1000
Key = Annotated[str, checked(key_fault)]
Keys = Annotated[list[Key], Field(max_length=MOST_MANIFESTS)]


class _Described(Body):
    """What every description of a storage may say."""

    display_name: DisplayName
    description: Prose = ""
    organization: None = None
    """The slug of the organization that it belongs to; null: it is personal."""
    manifests: Keys = Field(default_factory=list)
    """Keys of the manifests to attach; each is registered in the background."""
    delivery: Delivery = "proxy"
    """How bytes reach the client: through Framegate, or by 307 to a URL of minutes at the bucket itself.

    `redirect` is not for a `sas_token`, nor for a connection string that holds one.
    """

    @field_validator("manifests")
    @classmethod
    def _each_once(cls, keys: list[str]) -> list[str]:
        if len(set(keys)) != len(keys):
            raise ValueError("a manifest is named twice")
        return keys


class StorageBody(_Described):
    """A bucket to attach."""

    source: SourceBody

    def draft(self) -> StorageDraft:
        """Give what the service takes."""
        return StorageDraft(
            self.display_name, self.description, self.source.value(), tuple(self.manifests), self.delivery
        )


class StorageTarget(_Described):
    """What a storage would be after a change; checked as a whole, `source.auth` None keeps the credential."""

    source: PlaceBody


class StoragePatch(Body):
    """A merge patch (RFC 7396): only what it names changes, null resets to the default."""

    display_name: DisplayName | None = None
    description: Prose | None = None
    organization: Line | None = None
    source: SourcePatch | None = None
    manifests: Keys | None = None
    """The whole list: a manifest that is left out is detached."""
    delivery: Delivery | None = None


class StorageAnswer(View):
    """An attached storage; never a secret."""

    model_config = shown_as(
        id=1,
        display_name="Pets",
        description="",
        organization=None,
        owner="ada",
        source={
            "provider": "s3",
            "bucket": "pets",
            "region": "eu-central-1",
            "endpoint_url": "https://minio.example.org:9000",
            "prefix": "",
            "auth": {"type": "key_pair", "access_key_id_last4": "MPLE"},
        },
        manifests=["manifest.jsonl"],
        delivery="proxy",
        created_at="2026-03-01T09:30:00Z",
        updated_at="2026-03-01T09:30:00Z",
    )

    id: int
    display_name: str
    description: str
    organization: str | None
    owner: str
    source: SourceView
    manifests: list[str]
    delivery: Delivery
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: StorageView) -> "StorageAnswer":
        """Show a storage."""
        row = view.row
        return cls.model_validate(
            {
                "id": row.id,
                "display_name": row.display_name,
                "description": row.description,
                "organization": None,
                "owner": row.owner_name,
                "source": source_view(row),
                "manifests": list(view.manifests),
                "delivery": row.delivery,
                "created_at": row.created_at,
                "updated_at": row.updated_at,
            }
        )


class CheckAnswer(View):
    """One line of a checklist."""

    model_config = shown_as(name="credentials", ok=True, detail="Works.", remedy="")

    name: str
    ok: bool
    detail: str
    remedy: str
    """What to do; empty when there is nothing to do."""


class ProbeAnswer(View):
    """A checklist of a bucket that could be attached as it is."""

    ok: bool
    checks: list[CheckAnswer]


class HealthAnswer(ProbeAnswer):
    """A checklist of an attached storage, live."""

    state: HealthState


class FieldAnswer(View):
    """One field of a form."""

    name: str
    title: str
    required: bool
    secret: bool
    description: str


class AuthTypeAnswer(View):
    """One way in, and the fields of its credential."""

    type: str
    title: str
    fields: list[FieldAnswer]
    redirect: bool
    """Whether a storage with it may redirect; a connection string only if it holds the account's key."""


class ProviderAnswer(View):
    """One kind of bucket, as a form needs it."""

    name: str
    title: str
    fields: list[FieldAnswer]
    auth_types: list[AuthTypeAnswer]
    regions: list[str]
    """Known regions; any other word of lower-case letters, digits and `-` is accepted."""


class ProvidersAnswer(View):
    """Every kind of bucket that can be attached."""

    items: list[ProviderAnswer]


_S3_AUTH = {"type": "key_pair", "access_key_id": "AKIAEXAMPLE", "secret_access_key": "the-secret-access-key"}
_SAS = "sv=2025-05-05&ss=b&srt=co&sp=rl&se=2027-01-01T00:00:00Z&sig=the-signature"


def _example(summary: str, source: Mapping[str, Any], manifests: list[str] | None = None) -> dict[str, Any]:
    value = {"display_name": "Pets", "source": source, "manifests": manifests or ["manifest.jsonl"]}
    return {"summary": summary, "value": value}


def _azure(auth: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"provider": "azure", "container": "pets", "account_name": "petpictures", **more, "auth": auth}


STORAGE_EXAMPLES: dict[str, Any] = {
    "s3 key pair": _example(
        "S3 with an access key",
        {"provider": "s3", "bucket": "pets", "region": "eu-central-1", "auth": _S3_AUTH},
    ),
    "s3 temporary key": _example(
        "S3 with a temporary key (session token)",
        {
            "provider": "s3",
            "bucket": "pets",
            "region": "eu-central-1",
            "auth": {**_S3_AUTH, "session_token": "the-session-token"},
        },
    ),
    "s3 anonymous": _example(
        "A public S3 bucket",
        {"provider": "s3", "bucket": "open-images", "region": "us-east-1", "auth": {"type": "anonymous"}},
    ),
    "s3 compatible": _example(
        "A server that speaks S3 (MinIO, Ceph, SeaweedFS, R2, B2)",
        {
            "provider": "s3",
            "bucket": "pets",
            "endpoint_url": "https://minio.example.org:9000",
            "auth": _S3_AUTH,
        },
    ),
    "azure sas token": _example("Azure with a SAS token", _azure({"type": "sas_token", "sas_token": _SAS})),
    "azure account key": _example(
        "Azure with an account key", _azure({"type": "account_key", "account_key": "dGhlLWtleQ=="})
    ),
    "azure connection string": _example(
        "Azure with a connection string",
        {
            "provider": "azure",
            "container": "pets",
            "auth": {
                "type": "connection_string",
                "connection_string": "DefaultEndpointsProtocol=https;AccountName=petpictures;"
                "AccountKey=dGhlLWtleQ==;EndpointSuffix=core.windows.net",
            },
        },
    ),
    "azure anonymous": _example("A public Azure container", _azure({"type": "anonymous"})),
}

PATCH_EXAMPLES: dict[str, Any] = {
    "rename": {"summary": "Give it another name", "value": {"display_name": "Cats and dogs"}},
    "manifests": {
        "summary": "Attach a second manifest",
        "value": {"manifests": ["manifest.jsonl", "night/manifest.jsonl"]},
    },
    "redirect": {"summary": "Let the bucket itself send the bytes", "value": {"delivery": "redirect"}},
    "credential": {"summary": "Replace the credential", "value": {"source": {"auth": _S3_AUTH}}},
    "move": {
        "summary": "Move to another bucket (the credential is needed again)",
        "value": {"source": {"bucket": "pets-2", "auth": _S3_AUTH}},
    },
}
