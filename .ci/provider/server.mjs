// A certified authorization server on a loopback address, with the log-in pages that it brings along.
//
//     node server.mjs LOG [KEY.pem CERT.pem CA.pem]
//
// It prints one line of JSON, with its issuer and the address of its metadata, as soon as it listens. A line of
// JSON on its standard input makes it another server on the same port, see serve, and is answered alike. It ends
// when its standard input does, so that it never outlives the tests. LOG gets one line of JSON for each request
// that a client makes, written before the answer leaves: whoever has the answer finds the line.
//
// Plain http takes pushed authorization requests (RFC 9126) and keeps the e-mail address out of the ID token, as
// Core §5.4 has it. https, given a certificate, does neither, so that a client meets both kinds of server; there
// a certificate of that CA authenticates a client (RFC 8705 §2.1).

import { once } from 'node:events';
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { Provider } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const [log, key, cert, ca] = process.argv.slice(2);
const secure = Boolean(key);
const HOUR = 3600;
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';
console.info = console.warn; // what oidc-provider notices would come between the lines on stdout

// "native" means that a loopback redirect URI may have any port (RFC 8252 §7.3), and that the person is asked
// for consent each time.
const native = {
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  grant_types: ['authorization_code', 'refresh_token', DEVICE],
  redirect_uris: ['http://127.0.0.1/callback', 'http://[::1]/callback', 'http://localhost/callback'],
};
const confidential = { ...native, grant_types: ['authorization_code', 'refresh_token', 'client_credentials'] };

const clients = [
  { ...native, client_id: 'native-cli' },
  { ...native, client_id: 'short-cli' }, // its tokens live two seconds
  { ...native, client_id: 'waking-cli' }, // so does its first one; a refreshed one lives an hour, and is late
  { ...native, client_id: 'once-cli', grant_types: ['authorization_code'] }, // so do its; no refresh tokens
  { ...native, client_id: 'steady-cli' }, // its refresh tokens do not rotate
  { ...native, client_id: 'resource-cli' }, // may name several resources, and gets a token for the first
  { ...native, client_id: 'par-cli', require_pushed_authorization_requests: true },
  // https://localhost is for web applications only: nothing can listen there, so the address is pasted.
  {
    ...native,
    client_id: 'paste-cli',
    application_type: 'web',
    redirect_uris: ['https://localhost:9000/callback'],
  },
  // What has to be form-encoded before it goes into a Basic header (RFC 6749 §2.3.1). More than ASCII can print
  // may stand in neither (Appendix A.1 and A.2).
  {
    ...confidential,
    client_id: 'basic client:/%41+&="\\~',
    client_secret: 'a:secret/with %41+&=signs',
    token_endpoint_auth_method: 'client_secret_basic',
  },
  {
    ...confidential,
    client_id: 'post client:/%41+&="\\~',
    client_secret: 'another:secret/with %41+&=signs',
    token_endpoint_auth_method: 'client_secret_post',
  },
  {
    ...confidential,
    client_id: 'mtls-cli',
    token_endpoint_auth_method: 'tls_client_auth',
    tls_client_auth_san_dns: 'mtls-cli.example.test',
    tls_client_certificate_bound_access_tokens: true,
  },
];

function accessTokenLifetime(ctx, token, client) {
  const refreshed = token.gty.endsWith('refresh_token');
  const short = ['short-cli', 'once-cli'].includes(client.clientId);
  return short || (client.clientId === 'waking-cli' && !refreshed) ? 2 : HOUR;
}

// Whatever name the person types, an account of that name is there.
function findAccount(ctx, sub) {
  return { accountId: sub, claims: () => ({ sub, email: `${sub}@example.test`, name: `The ${sub}` }) };
}

const api = { scope: 'api:read api:write', accessTokenFormat: 'jwt' };

// A token is for one resource. Where several are named one may be chosen; by default it is an error.
function chooseResource(ctx, client, several) {
  return client?.clientId === 'resource-cli' ? several?.[0] : several;
}

const mTLS = {
  enabled: true,
  tlsClientAuth: true,
  certificateBoundAccessTokens: true,
  getCertificate: (ctx) => ctx.socket.getPeerX509Certificate(),
  certificateAuthorized: (ctx) => ctx.socket.authorized,
  certificateSubjectMatches: (ctx, kind, name) => Boolean(ctx.socket.getPeerX509Certificate().checkHost(name)),
};

const configuration = {
  adapter: createMemoryAdapter(), // of our own, so that sessions and tokens outlive a change, see serve
  clients,
  findAccount,
  clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth'],
  scopes: ['openid', 'offline_access', 'api:read'],
  claims: { openid: ['sub'], email: ['email'], profile: ['name'] },
  conformIdTokenClaims: !secure,
  clockTolerance: 0, // else a token that has expired is good for another fifteen seconds
  rotateRefreshToken: (ctx) => ctx.oidc.client.clientId !== 'steady-cli',
  pkce: { required: (ctx, client) => client.clientAuthMethod === 'none' },
  cookies: { keys: ['not a secret: this server is thrown away'] },
  ttl: {
    AccessToken: accessTokenLifetime,
    ClientCredentials: HOUR,
    DeviceCode: (ctx, code, client) => (client.clientId === 'short-cli' ? 2 : HOUR),
    Grant: HOUR,
    IdToken: HOUR,
    Interaction: HOUR,
    RefreshToken: HOUR,
    Session: HOUR,
  },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    mTLS,
    resourceIndicators: { enabled: true, getResourceServerInfo: () => api, defaultResource: chooseResource },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
};

async function record(ctx, next) {
  await next();
  const { method, host, path, status, body } = ctx;
  const answer = typeof body === 'object' ? body : undefined; // else it is a page
  const { authorization } = ctx.headers;
  const line = { method, host, path, status, authorization, params: ctx.oidc?.body, answer };
  appendFileSync(log, `${JSON.stringify(line)}\n`);
}

// The refresh token is spent, and its successor a second away, as on a slow network: nobody may use it again.
async function delay(ctx, next) {
  await next();
  const { client, params } = ctx.oidc ?? {};
  if (client?.clientId === 'waking-cli' && params?.grant_type === 'refresh_token') await setTimeout(1000);
}

const server = secure
  ? createSecureServer({
    key: readFileSync(key),
    cert: readFileSync(cert),
    ca: readFileSync(ca),
    requestCert: true,
    rejectUnauthorized: false, // most clients have none
  })
  : createServer();

const APPENDED = '/.well-known/openid-configuration';
const INSERTED = '/.well-known/oauth-authorization-server';

// What an address leads to within a provider whose issuer has this path, if anything. RFC 8414 §3.1 inserts its
// well-known before the path; oidc-provider itself knows no path, and answers only what stands behind it.
function within(path, inserted, url) {
  if (inserted && url.includes('/.well-known/')) return url === INSERTED + path ? INSERTED : undefined;
  return url.startsWith(`${path}/`) ? url.slice(path.length) : undefined;
}

// Another provider takes over: path is that of its issuer, inserted says that RFC 8414's address of the metadata
// is the only one, pushed whether there is RFC 9126, and all else overrides oidc-provider's configuration.
function serve({ path = '', inserted = false, pushed = !secure, ...overrides }) {
  const { address, port } = server.address();
  const origin = `${secure ? 'https' : 'http'}://${address}:${port}`;
  const mounted = path.replace(/\/$/, '');
  const provider = new Provider(origin + path, {
    ...configuration,
    features: { ...configuration.features, pushedAuthorizationRequests: { enabled: pushed } },
    // RFC 8705 §5: where clients with a certificate go, here the same place by its other name.
    discovery: secure ? { mtls_endpoint_aliases: { token_endpoint: `https://localhost:${port}/token` } } : {},
    ...overrides,
  });
  provider.use(delay);
  provider.use(record);
  const answer = provider.callback();
  server.removeAllListeners('request').on('request', (request, response) => {
    const url = within(mounted, inserted, request.url);
    if (url === undefined) return response.writeHead(404).end();
    Object.assign(request, { url, originalUrl: mounted + url }); // as Express does, which oidc-provider knows
    return answer(request, response);
  });
  const metadata = origin + (inserted ? INSERTED + mounted : mounted + APPENDED);
  console.log(JSON.stringify({ issuer: provider.issuer, metadata }));
}

await once(server.listen(0, '127.0.0.1'), 'listening');
serve({});
for await (const line of createInterface({ input: process.stdin })) serve(JSON.parse(line));
process.exit();
