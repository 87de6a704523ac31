// A real OpenID Provider (npm oidc-provider) on loopback, for one test. Prints its address when it listens.
//
// Clients `ci` and `cli` get access tokens that are JWTs: for the audience that `resource` names, with the claims of
// `test_claims`. Below /test/ stands what a test does to it: change its keys, be away, and count who asks for them.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(`${process.argv[2]}/package.json`);
const { Provider } = await import(require.resolve('oidc-provider'));

let provider;
let away = false;
let asked = 0;
let generation = 0;
let devices = [];

function keys() {
  generation += 1;
  const pair = (kind, options, alg) => {
    const jwk = generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' });
    return { ...jwk, kid: `${alg}-${generation}`, alg, use: 'sig' };
  };
  return [
    pair('rsa', { modulusLength: 2048 }, 'RS256'),
    pair('ec', { namedCurve: 'P-256' }, 'ES256'),
    pair('ed25519', {}, 'EdDSA'),
  ];
}

function start(issuer) {
  provider = new Provider(issuer, {
    jwks: { keys: keys() },
    clients: [
      { client_id: 'ci', client_secret: 'secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
      {
        client_id: 'cli', token_endpoint_auth_method: 'none', redirect_uris: [], response_types: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      },
    ],
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:certwright',
        useGrantedResource: () => true,
        getResourceServerInfo: (context, resource) => ({
          scope: 'openid offline_access',
          audience: resource,
          accessTokenTTL: 600,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: context.oidc.body?.test_alg ?? 'RS256' } },
        }),
      },
    },
    ttl: { AccessToken: 20 },
    extraTokenClaims: (context) => JSON.parse(context.oidc.body?.test_claims ?? '{}'),
  });
  provider.on('device_code.saved', (code) => devices.push(code));
}

// What `alice` does at the page of her code.
async function approve() {
  const waiting = devices.filter((code) => !code.accountId);
  for (const code of waiting) {
    const scope = 'openid offline_access';
    const { resource } = code.params;
    const grant = new provider.Grant({ accountId: 'alice', clientId: code.clientId });
    grant.addOIDCScope(scope);
    grant.addResourceScope(resource, scope);
    const authTime = Math.floor(Date.now() / 1000);
    Object.assign(code, { accountId: 'alice', grantId: await grant.save(600), scope, resource, authTime, claims: {} });
    await code.save(600);
  }
  return waiting.length;
}

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  const answer = (status, body = '') => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(body);
  };
  if (pathname === '/test/rotate') return start(issuer), answer(200);
  if (pathname === '/test/away') return (away = true), answer(200);
  if (pathname === '/test/back') return (away = false), answer(200);
  if (pathname === '/test/approve') return approve().then((count) => answer(200, String(count)));
  if (pathname === '/test/asked') return answer(200, String(asked));
  if (pathname === '/.well-known/openid-configuration') {
    asked += 1;
    if (away) return answer(503, 'away');
  }
  return provider.callback()(request, response);
});

let issuer;
server.listen(0, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  start(issuer);
  console.log(`listening on ${issuer}`);
});
