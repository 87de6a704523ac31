"""Uses everything that clients need, by the client that openapi-python-client makes."""

import os
from typing import TypeVar
from uuid import UUID

from certwright_client import AuthenticatedClient, models
from certwright_client.api.certificates import (
    change_certificate,
    create_certificate,
    download_certificate,
    download_certificate_der,
    download_chain,
    download_combined,
    download_fullchain,
    download_jks,
    download_pkcs_12,
    download_private_key,
    list_certificates,
    list_revisions,
)
from certwright_client.api.challenges import list_challenges
from certwright_client.api.events import list_events
from certwright_client.api.issuers import create_issuer, list_issuers
from certwright_client.api.orders import list_orders
from certwright_client.api.policies import create_policy, list_policies
from certwright_client.api.requests import list_requests
from certwright_client.api.secrets import create_secret, list_secrets
from certwright_client.api.service import (
    list_api_keys,
    list_audit,
    list_oidc_issuers,
    list_problems,
    list_throttles,
)
from certwright_client.api.webhooks import (
    change_webhook,
    create_webhook,
    list_deliveries,
    list_webhooks,
)
from certwright_client.types import File
from httpx import Timeout

ME = "openapi-python-client"
client = AuthenticatedClient(
    base_url=os.environ["SDK_SERVER"],
    token=os.environ["SDK_API_KEY"],
    raise_on_unexpected_status=True,
    timeout=Timeout(90),
)
T = TypeVar("T")


def good(answer: T | models.Problem | None) -> T:
    """The answer, which is not a problem."""
    assert answer is not None
    assert not isinstance(answer, models.Problem), answer
    return answer


def prepare() -> UUID:
    """Something for every list; answers the webhook."""
    selector = models.SolverSelector(dns_zones=["example.com"])
    acme = models.Acme(
        server=os.environ["SDK_ACME_DIRECTORY"],
        ca_bundle=os.environ["SDK_ACME_CA_BUNDLE"],
        solvers=[models.Solver(selector=selector, http01=models.Http01())],
    )
    kind = models.Kind.CLUSTERISSUER
    good(create_issuer.sync(client=client, body=models.IssuerSpec(kind=kind, name=ME, acme=acme)))
    values = models.SecretSpecStringData.from_dict({"api-token": "for-nothing"})
    good(create_secret.sync(client=client, body=models.SecretSpec(name=ME, string_data=values)))
    policy = models.PolicySpec(
        name=ME,
        namespaces=[ME],
        names=[models.NameRule(pattern="**.example.com", wildcards=True)],
        issuers=[models.IssuerRef(name=ME, kind=kind)],
    )
    good(create_policy.sync(client=client, body=policy))

    wanted = models.WebhookSpec(url=f"https://127.0.0.1/{ME}", disabled=True)
    made = good(create_webhook.sync(client=client, body=wanted))
    patch = models.WebhookPatch(description="For nobody")
    webhook = good(change_webhook.sync(made.id, client=client, body=patch))
    assert webhook.description == "For nobody" and webhook.url == made.url
    return made.id


def issue() -> models.Certificate:
    wanted = models.CertificateSpec(
        dns_names=[f"{ME}.example.com"],
        issuer_ref=models.IssuerRef(name=ME, kind=models.Kind.CLUSTERISSUER),
        labels=models.CertificateSpecLabelsType0.from_dict({"client": ME, "for": "now"}),
    )
    certificate = good(create_certificate.sync(client=client, body=wanted, prefer="wait=60"))
    assert certificate.status.phase is models.Phase.READY, certificate.status
    return certificate


def change(present: models.Certificate) -> None:
    """What is given replaces, `None` removes, the rest stays."""
    labels = models.CertificatePatchLabelsType0.from_dict({"client": "changed", "for": None})
    patch = models.CertificatePatch(renew_before="720h", labels=labels)
    changed = good(change_certificate.sync(present.id, client=client, body=patch))
    assert changed.renew_before == "720h"
    assert changed.labels.to_dict() == {"client": "changed"}
    patch = models.CertificatePatch(renew_before=None)
    changed = good(change_certificate.sync(present.id, client=client, body=patch))
    assert changed.renew_before is None
    assert changed.dns_names == present.dns_names

    patch = models.CertificatePatch(renew_before="soon")
    refused = change_certificate.sync(present.id, client=client, body=patch)
    assert isinstance(refused, models.Problem), refused
    assert refused.code is models.Code.VALIDATION_FAILED


def contents(file: File | models.Problem | None) -> bytes:
    return good(file).payload.read()


def download(id: UUID) -> None:
    for file in [
        download_certificate.sync(id, client=client),
        download_chain.sync(id, client=client),
        download_fullchain.sync(id, client=client),
    ]:
        assert contents(file).startswith(b"-----BEGIN CERTIFICATE-----")
    key = contents(download_private_key.sync(id, client=client))
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert b"CERTIFICATE" in contents(download_combined.sync(id, client=client))
    assert contents(download_certificate_der.sync(id, client=client)).startswith(b"\x30")
    pkcs12 = download_pkcs_12.sync(id, client=client, x_keystore_password="changeit")
    assert contents(pkcs12).startswith(b"\x30")
    jks = download_jks.sync(id, client=client, x_keystore_password="changeit")
    assert contents(jks).startswith(b"\xfe\xed\xfe\xed")


def read_lists(id: UUID, webhook: UUID) -> None:
    mine, named = "client=changed", f"{ME}.example.com"
    found = good(list_certificates.sync(client=client, label=mine, name=named))
    assert [one.id for one in found.items] == [id]
    assert good(list_revisions.sync(id, client=client)).items[0].revision == 1
    assert good(list_requests.sync(client=client, certificate=id)).items
    orders = good(list_orders.sync(client=client, certificate=id)).items
    assert orders[0].state is models.OrderState.VALID
    assert good(list_challenges.sync(client=client)).items
    issuer = good(list_issuers.sync(client=client, name=ME)).items[0]
    assert isinstance(issuer.acme.solvers[0].selector, models.SolverSelector)
    assert good(list_secrets.sync(client=client, name=ME)).items
    assert good(list_policies.sync(client=client, name=ME)).items
    assert webhook in [one.id for one in good(list_webhooks.sync(client=client)).items]
    deliveries = good(list_deliveries.sync(webhook, client=client)).items
    assert "certificate.issued" in [one.type_ for one in deliveries]
    assert good(list_events.sync(client=client)).items
    assert good(list_api_keys.sync(client=client)).items
    assert good(list_audit.sync(client=client, limit=500)).items
    assert good(list_throttles.sync(client=client)).items is not None
    assert good(list_oidc_issuers.sync(client=client)).items == []
    assert b"not-found" in list_problems.sync_detailed(client=client).content


hook = prepare()
issued = issue()
change(issued)
download(issued.id)
read_lists(issued.id, hook)
