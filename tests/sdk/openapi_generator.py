"""Uses everything that clients need, by the client that openapi-generator makes for Python."""

import os
from uuid import UUID

import certwright_client as api

SERVER, KEY = os.environ["SDK_SERVER"], os.environ["SDK_API_KEY"]
DIRECTORY, CA_BUNDLE = os.environ["SDK_ACME_DIRECTORY"], os.environ["SDK_ACME_CA_BUNDLE"]
ME = "openapi-generator"


def prepare(client: api.ApiClient) -> UUID:
    """Something for every list; answers the webhook."""
    solver = api.Solver(selector=api.SolverSelector(dnsZones=["example.com"]), http01=api.Http01())
    acme = api.Acme(server=DIRECTORY, caBundle=CA_BUNDLE, solvers=[solver])
    issuer = api.IssuerSpec(kind=api.Kind.CLUSTERISSUER, name=ME, acme=acme)
    api.IssuersApi(client).create_issuer(issuer)
    secret = api.SecretSpec(name=ME, stringData={"api-token": "for-nothing"})
    api.SecretsApi(client).create_secret(secret)
    issuers = [api.IssuerRef(name=ME, kind=api.Kind.CLUSTERISSUER)]
    rules = [api.NameRule(pattern="**.example.com", wildcards=True)]
    policy = api.PolicySpec(name=ME, namespaces=[ME], names=rules, issuers=issuers)
    api.PoliciesApi(client).create_policy(policy)

    webhooks = api.WebhooksApi(client)
    made = webhooks.create_webhook(api.WebhookSpec(url=f"https://127.0.0.1/{ME}", disabled=True))
    patch = api.WebhookPatch(description="For nobody", labels={"client": ME})
    webhook = webhooks.change_webhook(made.id, patch)
    assert webhook.description == "For nobody" and webhook.url == made.url
    return made.id


def issue(client: api.ApiClient) -> api.Certificate:
    certificates = api.CertificatesApi(client)
    wanted = api.CertificateSpec(
        dnsNames=[f"{ME}.example.com"],
        issuerRef=api.IssuerRef(name=ME, kind=api.Kind.CLUSTERISSUER),
        labels={"client": ME, "for": "now"},
    )
    certificate = certificates.create_certificate(wanted, prefer="wait=60")
    assert certificate.status.phase == api.Phase.READY, certificate.status
    return certificate


def change(client: api.ApiClient, present: api.Certificate) -> None:
    """What is given replaces, `None` removes, the rest stays."""
    certificates = api.CertificatesApi(client)
    patch = api.CertificatePatch(renewBefore="720h", labels={"client": "changed", "for": None})
    changed = certificates.change_certificate(present.id, patch)
    assert changed.renew_before == "720h"
    assert changed.labels == {"client": "changed"}
    changed = certificates.change_certificate(present.id, api.CertificatePatch(renewBefore=None))
    assert changed.renew_before is None
    assert changed.dns_names == present.dns_names


def download(client: api.ApiClient, id: UUID) -> None:
    certificates = api.CertificatesApi(client)
    for file in [
        certificates.download_certificate(id),
        certificates.download_chain(id),
        certificates.download_fullchain(id),
    ]:
        assert file.startswith(b"-----BEGIN CERTIFICATE-----")
    assert certificates.download_private_key(id).startswith(b"-----BEGIN PRIVATE KEY-----")
    assert b"CERTIFICATE" in certificates.download_combined(id)
    assert certificates.download_certificate_der(id).startswith(b"\x30")
    assert certificates.download_pkcs12(id, "changeit").startswith(b"\x30")
    assert certificates.download_jks(id, "changeit").startswith(b"\xfe\xed\xfe\xed")


def read_lists(client: api.ApiClient, id: UUID, webhook: UUID) -> None:
    service = api.ServiceApi(client)
    certificates, webhooks = api.CertificatesApi(client), api.WebhooksApi(client)
    found = certificates.list_certificates(label="client=changed", name=f"{ME}.example.com")
    assert [one.id for one in found.items] == [id]
    assert certificates.list_revisions(id).items[0].revision == 1
    assert api.RequestsApi(client).list_requests(certificate=id).items
    assert api.OrdersApi(client).list_orders(certificate=id).items[0].state == api.OrderState.VALID
    assert api.ChallengesApi(client).list_challenges().items
    assert api.IssuersApi(client).list_issuers(name=ME).items[0].acme.solvers[0].selector
    assert api.SecretsApi(client).list_secrets(name=ME).items
    assert api.PoliciesApi(client).list_policies(name=ME).items
    assert webhook in [one.id for one in webhooks.list_webhooks().items]
    deliveries = webhooks.list_deliveries(webhook).items
    assert "certificate.issued" in [one.type for one in deliveries]
    assert api.EventsApi(client).list_events().items
    assert service.list_api_keys().items
    assert service.list_audit(limit=500).items
    assert service.list_throttles().next_cursor is None
    assert service.list_oidc_issuers().items == []
    assert "not-found" in service.list_problems()


with api.ApiClient(api.Configuration(host=SERVER, access_token=KEY)) as connected:
    hook = prepare(connected)
    issued = issue(connected)
    change(connected, issued)
    download(connected, issued.id)
    read_lists(connected, issued.id, hook)
