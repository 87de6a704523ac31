// Uses everything that clients need, by openapi-fetch and the types that openapi-typescript makes.

import assert from "node:assert/strict";
import { env } from "node:process";
import createClient from "openapi-fetch";
import type { components, paths } from "./client/schema";

type Certificate = components["schemas"]["Certificate"];

const me = "openapi-typescript";
const client = createClient<paths>({
  baseUrl: env.SDK_SERVER,
  headers: { Authorization: `Bearer ${env.SDK_API_KEY}` },
});

/** The data of an answer, which is not a problem. */
async function good<T>(answer: Promise<{ data?: T; error?: unknown }>): Promise<T> {
  const { data, error } = await answer;
  assert.equal(error, undefined);
  assert.ok(data !== undefined);
  return data;
}

/** Something for every list; answers the webhook. */
async function prepare(): Promise<string> {
  const issuerRef = { name: me, kind: "ClusterIssuer" } as const;
  const solvers = [{ selector: { dnsZones: ["example.com"] }, http01: {} }];
  const acme = { server: env.SDK_ACME_DIRECTORY!, caBundle: env.SDK_ACME_CA_BUNDLE, solvers };
  await good(client.POST("/issuers", { body: { ...issuerRef, acme } }));
  await good(client.POST("/secrets", { body: { name: me, stringData: { "api-token": "for-nothing" } } }));
  const names = [{ pattern: "**.example.com", wildcards: true }];
  const policy = { name: me, namespaces: [me], names, issuers: [issuerRef], maxNames: 10 };
  await good(client.POST("/policies", { body: policy }));

  const wanted = { url: `https://127.0.0.1/${me}`, disabled: true };
  const made = await good(client.POST("/webhooks", { body: wanted }));
  const path = { id: made.id };
  const patch = { description: "For nobody", labels: { client: me } };
  const webhook = await good(client.PATCH("/webhooks/{id}", { params: { path }, body: patch }));
  assert.equal(webhook.description, "For nobody");
  assert.equal(webhook.url, made.url);
  return made.id;
}

async function issue(): Promise<Certificate> {
  const body: components["schemas"]["CertificateSpec"] = {
    dnsNames: [`${me}.example.com`],
    issuerRef: { name: me, kind: "ClusterIssuer" },
    labels: { client: me, for: "now" },
  };
  const params = { header: { Prefer: "wait=60" } };
  const certificate = await good(client.POST("/certificates", { params, body }));
  assert.equal(certificate.status.phase, "Ready");
  return certificate;
}

/** What is given replaces, `null` removes, the rest stays. */
async function change(present: Certificate): Promise<void> {
  const params = { path: { id: present.id } };
  const body = { renewBefore: "720h", labels: { client: "changed", for: null } };
  const changed = await good(client.PATCH("/certificates/{id}", { params, body }));
  assert.equal(changed.renewBefore, "720h");
  assert.deepEqual(changed.labels, { client: "changed" });
  const without = { renewBefore: null };
  const again = await good(client.PATCH("/certificates/{id}", { params, body: without }));
  assert.equal(again.renewBefore ?? null, null);
  assert.deepEqual(again.dnsNames, present.dnsNames);
}

async function download(id: string): Promise<void> {
  const path = { id };
  const as = { params: { path }, parseAs: "arrayBuffer" } as const;
  const header = { "X-Keystore-Password": "changeit" };
  const withPassword = { params: { path, header }, parseAs: "arrayBuffer" } as const;
  const bytes = async (answer: Promise<{ data?: ArrayBuffer; error?: unknown }>) =>
    Buffer.from(await good(answer));

  for (const file of [
    await bytes(client.GET("/certificates/{id}/cert.pem", as)),
    await bytes(client.GET("/certificates/{id}/chain.pem", as)),
    await bytes(client.GET("/certificates/{id}/fullchain.pem", as)),
  ]) {
    assert.match(file.toString(), /^-----BEGIN CERTIFICATE-----/);
  }
  const key = await bytes(client.GET("/certificates/{id}/privkey.pem", as));
  assert.match(key.toString(), /^-----BEGIN PRIVATE KEY/);
  const combined = await bytes(client.GET("/certificates/{id}/combined.pem", as));
  assert.match(combined.toString(), /BEGIN CERTIFICATE/);
  assert.equal((await bytes(client.GET("/certificates/{id}/cert.der", as)))[0], 0x30);
  assert.equal((await bytes(client.GET("/certificates/{id}/keystore.p12", withPassword)))[0], 0x30);
  const jks = await bytes(client.GET("/certificates/{id}/keystore.jks", withPassword));
  assert.equal(jks.readUInt32BE(), 0xfeedfeed);
}

async function readLists(id: string, webhook: string): Promise<void> {
  const named = { params: { query: { name: me } } };
  const ofCertificate = { params: { query: { certificate: id } } };
  const query = { label: "client=changed", name: `${me}.example.com` };
  const found = await good(client.GET("/certificates", { params: { query } }));
  assert.deepEqual(found.items.map((one) => one.id), [id]);
  const ofId = { params: { path: { id } } };
  const revisions = await good(client.GET("/certificates/{id}/revisions", ofId));
  assert.equal(revisions.items[0]?.revision, 1);
  assert.equal((await good(client.GET("/requests", ofCertificate))).items.length, 1);
  assert.equal((await good(client.GET("/orders", ofCertificate))).items[0]?.state, "valid");
  assert.ok((await good(client.GET("/challenges"))).items.length > 0);
  const [issuer] = (await good(client.GET("/issuers", named))).items;
  assert.deepEqual(issuer?.acme.solvers[0]?.selector?.dnsZones, ["example.com"]);
  assert.equal((await good(client.GET("/secrets", named))).items.length, 1);
  assert.equal((await good(client.GET("/policies", named))).items.length, 1);
  assert.ok((await good(client.GET("/webhooks"))).items.some((one) => one.id === webhook));
  const ofWebhook = { params: { path: { id: webhook } } };
  const deliveries = await good(client.GET("/webhooks/{id}/deliveries", ofWebhook));
  assert.ok(deliveries.items.some((one) => one.type === "certificate.issued"));
  const events = await good(client.GET("/events", { headers: { Accept: "application/json" } }));
  // The stream's answer is one event.
  assert.ok("items" in events && events.items.length > 0);
  assert.ok((await good(client.GET("/api-keys"))).items.length > 0);
  assert.ok((await good(client.GET("/audit", { params: { query: { limit: 500 } } }))).items.length > 0);
  assert.ok(Array.isArray((await good(client.GET("/throttles"))).items));
  assert.deepEqual((await good(client.GET("/oidc-issuers"))).items, []);
  assert.match(await good(client.GET("/problems", { parseAs: "text" })), /not-found/);
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
