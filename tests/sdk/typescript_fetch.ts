// Uses everything that clients need, by the client that openapi-generator makes for fetch.

import assert from "node:assert/strict";
import { env } from "node:process";
import * as api from "./client/index";

const me = "typescript-fetch";
const client = new api.Configuration({ basePath: env.SDK_SERVER, accessToken: env.SDK_API_KEY });
const certificates = new api.CertificatesApi(client);
const issuers = new api.IssuersApi(client);
const secrets = new api.SecretsApi(client);
const policies = new api.PoliciesApi(client);
const webhooks = new api.WebhooksApi(client);
const service = new api.ServiceApi(client);

/** Something for every list; answers the webhook. */
async function prepare(): Promise<string> {
  const issuerRef = { name: me, kind: api.Kind.ClusterIssuer };
  const solvers = [{ selector: { dnsZones: ["example.com"] }, http01: {} }];
  const acme = { server: env.SDK_ACME_DIRECTORY!, caBundle: env.SDK_ACME_CA_BUNDLE, solvers };
  await issuers.createIssuer({ issuerSpec: { kind: "ClusterIssuer", name: me, acme } });
  await secrets.createSecret({ secretSpec: { name: me, stringData: { "api-token": "for-nothing" } } });
  const names = [{ pattern: "**.example.com", wildcards: true }];
  await policies.createPolicy({
    policySpec: { name: me, namespaces: [me], names, issuers: [issuerRef] },
  });

  const made = await webhooks.createWebhook({
    webhookSpec: { url: `https://127.0.0.1/${me}`, disabled: true },
  });
  const webhookPatch = { description: "For nobody", labels: { client: me } };
  const webhook = await webhooks.changeWebhook({ id: made.id, webhookPatch });
  assert.equal(webhook.description, "For nobody");
  assert.equal(webhook.url, made.url);
  return made.id;
}

async function issue(): Promise<api.Certificate> {
  const certificateSpec: api.CertificateSpec = {
    dnsNames: [`${me}.example.com`],
    issuerRef: { name: me, kind: "ClusterIssuer" },
    labels: { client: me, for: "now" },
  };
  const certificate = await certificates.createCertificate({ certificateSpec, prefer: "wait=60" });
  assert.equal(certificate.status.phase, api.Phase.Ready);
  return certificate;
}

/** What is given replaces, `null` removes, the rest stays. */
async function change(present: api.Certificate): Promise<void> {
  const id = present.id;
  const certificatePatch: api.CertificatePatch = {
    renewBefore: "720h",
    labels: { client: "changed", for: null },
  };
  const changed = await certificates.changeCertificate({ id, certificatePatch });
  assert.equal(changed.renewBefore, "720h");
  assert.deepEqual(changed.labels, { client: "changed" });
  const again = await certificates.changeCertificate({ id, certificatePatch: { renewBefore: null } });
  assert.equal(again.renewBefore, null);
  assert.deepEqual(again.dnsNames, present.dnsNames);
}

async function download(id: string): Promise<void> {
  const bytes = async (file: Blob) => Buffer.from(await file.arrayBuffer());
  for (const file of [
    await certificates.downloadCertificate({ id }),
    await certificates.downloadChain({ id }),
    await certificates.downloadFullchain({ id }),
  ]) {
    assert.match(await file.text(), /^-----BEGIN CERTIFICATE-----/);
  }
  assert.match(await (await certificates.downloadPrivateKey({ id })).text(), /^-----BEGIN PRIVATE KEY/);
  assert.match(await (await certificates.downloadCombined({ id })).text(), /BEGIN CERTIFICATE/);
  assert.equal((await bytes(await certificates.downloadCertificateDer({ id })))[0], 0x30);
  const withPassword = { id, xKeystorePassword: "changeit" };
  assert.equal((await bytes(await certificates.downloadPkcs12(withPassword)))[0], 0x30);
  assert.equal((await bytes(await certificates.downloadJks(withPassword))).readUInt32BE(), 0xfeedfeed);
}

async function readLists(id: string, webhook: string): Promise<void> {
  const found = await certificates.listCertificates({ label: "client=changed", name: `${me}.example.com` });
  assert.deepEqual(found.items.map((one) => one.id), [id]);
  assert.equal((await certificates.listRevisions({ id })).items[0]?.revision, 1);
  const [request] = (await new api.RequestsApi(client).listRequests({ certificate: id })).items;
  assert.ok(request?.createdAt instanceof Date);
  const [order] = (await new api.OrdersApi(client).listOrders({ certificate: id })).items;
  assert.equal(order?.state, api.OrderState.Valid);
  assert.ok((await new api.ChallengesApi(client).listChallenges()).items.length > 0);
  const [issuer] = (await issuers.listIssuers({ name: me })).items;
  assert.deepEqual(issuer?.acme.solvers[0]?.selector?.dnsZones, ["example.com"]);
  assert.equal((await secrets.listSecrets({ name: me })).items.length, 1);
  assert.equal((await policies.listPolicies({ name: me })).items.length, 1);
  assert.ok((await webhooks.listWebhooks()).items.some((one) => one.id === webhook));
  const deliveries = (await webhooks.listDeliveries({ id: webhook })).items;
  assert.ok(deliveries.some((one) => one.type === "certificate.issued"));
  assert.ok((await new api.EventsApi(client).listEvents()).items.length > 0);
  assert.ok((await service.listApiKeys()).items.length > 0);
  assert.ok((await service.listAudit({ limit: 500 })).items.length > 0);
  assert.ok(Array.isArray((await service.listThrottles()).items));
  assert.deepEqual((await service.listOidcIssuers()).items, []);
  assert.match(await service.listProblems(), /not-found/);
}

async function main(): Promise<void> {
  const webhook = await prepare();
  const issued = await issue();
  await change(issued);
  await download(issued.id);
  await readLists(issued.id, webhook);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
