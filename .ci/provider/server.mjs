// A certified authorization server on a loopback address, with the log-in pages that it brings along.
//
//     node server.mjs LOG [KEY.pem CERT.pem]
//
// It prints one line of JSON with its issuer as soon as it listens, and ends when its standard input does, so
// that it never outlives the tests. LOG gets one line of JSON for each request that a client makes, written
// before the answer leaves: whoever has the answer finds the line.
//
// Plain http takes pushed authorization requests (RFC 9126) and keeps the e-mail address out of the ID token, as
// Core §5.4 has it. https, given a certificate, does neither, so that a client meets both kinds of server.

import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { setTimeout } from 'node:timers/promises';
import { Provider } from 'oidc-provider';

const [log, key, cert] = process.argv.slice(2);
const secure = Boolean(key);
const HOUR = 3600;
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';

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
  // https://localhost is for web applications only: nothing can listen there, so the address is pasted.
  {
    ...native,
    client_id: 'paste-cli',
    application_type: 'web',
    redirect_uris: ['https://localhost:9000/callback'],
  },
  // What has to be form-encoded before it goes into a Basic header (RFC 6749 §2.3.1).
  {
    ...confidential,
    client_id: 'basic-cli',
    client_secret: 'a:secret/with %41+&=signs',
    token_endpoint_auth_method: 'client_secret_basic',
  },
  {
    ...confidential,
    client_id: 'post-cli',
    client_secret: 'another:secret/with %41+&=signs',
    token_endpoint_auth_method: 'client_secret_post',
  },
];

function accessTokenLifetime(ctx, token, client) {
  const refreshed = token.gty.endsWith('refresh_token');
  const short = client.clientId === 'short-cli' || (client.clientId === 'waking-cli' && !refreshed);
  return short ? 2 : HOUR;
}

// Whatever name the person types, an account of that name is there.
function findAccount(ctx, sub) {
  return { accountId: sub, claims: () => ({ sub, email: `${sub}@example.test`, name: `The ${sub}` }) };
}

const api = { scope: 'api:read api:write', accessTokenFormat: 'jwt' };

const configuration = {
  clients,
  findAccount,
  scopes: ['openid', 'offline_access', 'api:read'],
  claims: { openid: ['sub'], email: ['email'], profile: ['name'] },
  conformIdTokenClaims: !secure,
  clockTolerance: 0, // else a token that has expired is good for another fifteen seconds
  rotateRefreshToken: true,
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
    pushedAuthorizationRequests: { enabled: !secure },
    resourceIndicators: { enabled: true, getResourceServerInfo: () => api },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
};

async function record(ctx, next) {
  await next();
  const { method, path, status, body } = ctx;
  const answer = typeof body === 'object' ? body : undefined; // else it is a page
  const line = { method, path, status, authorization: ctx.headers.authorization, params: ctx.oidc?.body, answer };
  appendFileSync(log, `${JSON.stringify(line)}\n`);
}

// The refresh token is spent, and its successor a second away, as on a slow network: nobody may use it again.
async function delay(ctx, next) {
  await next();
  const { client, params } = ctx.oidc ?? {};
  if (client?.clientId === 'waking-cli' && params?.grant_type === 'refresh_token') await setTimeout(1000);
}

const server = secure
  ? createSecureServer({ key: readFileSync(key), cert: readFileSync(cert) })
  : createServer();

server.listen(0, '127.0.0.1', () => {
  const { address, port } = server.address();
  const provider = new Provider(`${secure ? 'https' : 'http'}://${address}:${port}`, configuration);
  provider.use(delay);
  provider.use(record);
  server.on('request', provider.callback());
  console.log(JSON.stringify({ issuer: provider.issuer }));
});

process.stdin.resume().on('end', () => process.exit());
