// Sigstore's services on loopback, with an authority of its own: what cosign asks when it signs without a key.
//
// Certificates, log entries and time stamps are @sigstore/mock's. This file gives them the addresses that cosign asks,
// reads requests as cosign writes them, and records an entry in the form in which the real log does: the mock records
// a request as it came. Usage: node server.mjs FOLDER; it writes trusted_root.json, signing configurations and keys
// into FOLDER, then one line with its address, and ends when its standard input does.

import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(import.meta.url);
const mock = require('@sigstore/mock');
const asn1js = require('asn1js');
const pkijs = require('pkijs');
const canonicalize = require('canonicalize');

const folder = process.argv[2];
const ORIGIN = '127.0.0.1'; // of the newer log: the host of its address
const pair = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const keys = { ca: generateKeyPairSync('ec', { namedCurve: 'P-256' }), ct: pair(), log: pair(), tsa: pair() };
const newer = generateKeyPairSync('ed25519');
const der = (key) => key.export({ format: 'der', type: 'spki' });
const base64 = (bytes) => Buffer.from(bytes).toString('base64');
const sha256 = (...parts) => parts.reduce((hash, each) => hash.update(each), createHash('sha256')).digest();

const ctLog = await mock.initializeCTLog(keys.ct);
const ca = await mock.initializeCA(keys.ca, ctLog);
const tsa = await mock.initializeTSA(keys.tsa);
const fulcio = mock.fulcioHandler(ca, { subjectClaim: 'sub' }).fn;

// The time stamp repeats the client's nonce, of any length.
const tstInfo = tsa.tstInfo.bind(tsa);
tsa.tstInfo = (request) => {
  const info = tstInfo({ ...request, nonce: 0 });
  info.nonce = request.rawNonce;
  return info;
};

// Each entry is the third of five: so the proof has hashes of both sides.
const others = [0, 1, 3, 4].map((i) => sha256(Buffer.from([0]), Buffer.from(`entry ${i}`)));
const node = (left, right) => sha256(Buffer.from([1]), left, right);
function inclusion(body, origin, hint, signNote) {
  const [a, b, d, e] = others;
  const leaf = sha256(Buffer.from([0]), body);
  const root = node(node(node(a, b), node(leaf, d)), e);
  const note = `${origin}\n5\n${base64(root)}\n`;
  const signature = Buffer.concat([hint, signNote(Buffer.from(note))]);
  return {
    logIndex: 2, treeSize: 5, rootHash: root, hashes: [d, node(a, b), e],
    checkpoint: `${note}\n\u2014 ${origin.split(' ')[0]} ${base64(signature)}\n`,
  };
}

let tlog;
function prepareLog(url) {
  return mock.initializeTLog(url, keys.log).then((made) => {
    tlog = made;
    tlog.calculateInclusionProof = ({ body, logID }) => {
      const proof = inclusion(body, `${tlog.host} - 1`, logID.subarray(0, 4), (note) => sign('sha256', note, keys.log.privateKey));
      return { ...proof, rootHash: proof.rootHash.toString('hex'), hashes: proof.hashes.map((h) => h.toString('hex')) };
    };
  });
}

// What Rekor records of an envelope: its hashes, and not itself.
function recorded(entry) {
  if (entry.kind !== 'dsse') return entry;
  const { envelope, verifiers } = entry.spec.proposedContent;
  const parsed = JSON.parse(envelope);
  const hash = (data) => ({ algorithm: 'sha256', value: sha256(data).toString('hex') });
  return {
    apiVersion: '0.0.1', kind: 'dsse',
    spec: {
      envelopeHash: hash(Buffer.from(envelope)),
      payloadHash: hash(Buffer.from(parsed.payload, 'base64')),
      signatures: parsed.signatures.map((each, i) => ({ signature: each.sig, verifier: verifiers[i] })),
    },
  };
}

function loggedByVersion2(request, origin) {
  const asked = request.hashedRekordRequestV002;
  if (!asked) throw new Error(`cannot log ${Object.keys(request)}`);
  const body = Buffer.from(canonicalize({
    apiVersion: '0.0.2', kind: 'hashedrekord',
    spec: { hashedRekordV002: { data: { algorithm: 'SHA2_256', digest: asked.digest }, signature: asked.signature } },
  }));
  const hint = noteKey(origin);
  const proof = inclusion(body, origin, hint.subarray(0, 4), (note) => sign(null, note, newer.privateKey));
  return {
    logIndex: '2', logId: { keyId: base64(hint) }, kindVersion: { kind: 'hashedrekord', version: '0.0.2' },
    canonicalizedBody: base64(body),
    inclusionProof: {
      logIndex: '2', treeSize: '5', rootHash: base64(proof.rootHash), hashes: proof.hashes.map(base64),
      checkpoint: { envelope: proof.checkpoint },
    },
  };
}

// https://github.com/C2SP/C2SP/blob/main/signed-note.md: an Ed25519 key by its name.
const raw = () => der(newer.publicKey).subarray(-32);
const noteKey = (origin) => sha256(Buffer.from(`${origin}\n`), Buffer.from([1]), raw());

async function stamp(body) {
  const request = new pkijs.TimeStampReq({ schema: asn1js.fromBER(body.buffer.slice(body.byteOffset, body.byteOffset + body.length)).result });
  return tsa.timestamp({
    artifactHash: Buffer.from(request.messageImprint.hashedMessage.valueBlock.valueHexView),
    hashAlgorithmOID: request.messageImprint.hashAlgorithm.algorithmId,
    rawNonce: request.nonce, policyOID: '1.3.6.1.4.1.57264.2', certReq: request.certReq ?? false,
  });
}

// cosign sends the token in a header; the mock reads it from the body.
async function certified(request, key) {
  const token = request.headers.authorization.split(' ')[1];
  const asked = { credentials: { oidcIdentityToken: token }, publicKeyRequest: { publicKey: { content: key } } };
  const made = await fulcio(JSON.stringify(asked));
  if (made.statusCode !== 201) throw new Error(made.response);
  return made.response;
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const path = new URL(request.url, url).pathname;
  const answer = (status, type, data) => response.writeHead(status, { 'Content-Type': type }).end(data);
  const json = 'application/json';
  try {
    if (path === '/api/v2/signingCert') {
      answer(200, json, await certified(request, JSON.parse(body).publicKeyRequest.publicKey.content));
    } else if (path === '/api/v1/signingCert') {
      const made = await certified(request, Buffer.from(JSON.parse(body).publicKey.content, 'base64').toString());
      const chain = JSON.parse(made).signedCertificateEmbeddedSct.chain.certificates;
      answer(201, 'application/pem-certificate-chain', chain.join(''));
    } else if (path === '/api/v1/log/entries') {
      const entry = await tlog.log(recorded(JSON.parse(body)));
      response.setHeader('ETag', Object.keys(entry)[0]);
      answer(201, json, JSON.stringify(entry));
    } else if (path === '/api/v2/log/entries') {
      answer(201, json, JSON.stringify(loggedByVersion2(JSON.parse(body), ORIGIN)));
    } else if (path === '/api/v1/timestamp') {
      answer(201, 'application/timestamp-reply', await stamp(body));
    } else {
      answer(404, 'text/plain', 'there is no such path');
    }
  } catch (error) {
    console.error(error);
    answer(400, 'text/plain', String(error));
  }
});

await new Promise((done) => server.listen(0, '127.0.0.1', done));
const host = `127.0.0.1:${server.address().port}`;
const url = `http://${host}`;
await prepareLog(url);

const start = new Date(Date.now() - 86_400_000).toISOString();
const authority = (certificates) => ({
  subject: { organization: 'loopback', commonName: 'loopback' }, uri: url,
  certChain: { certificates: certificates.map((each) => ({ rawBytes: base64(each) })) }, validFor: { start },
});
const log = (key, keyDetails, keyId, baseUrl) => ({
  baseUrl, hashAlgorithm: 'SHA2_256', publicKey: { rawBytes: base64(key), keyDetails, validFor: { start } },
  logId: { keyId: base64(keyId) },
});
const ecdsa = 'PKIX_ECDSA_P256_SHA_256';
const write = (name, data) => writeFileSync(join(folder, name), typeof data === 'string' ? data : JSON.stringify(data));
write('trusted_root.json', {
  mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
  tlogs: [
    log(der(keys.log.publicKey), ecdsa, sha256(der(keys.log.publicKey)), url),
    log(der(newer.publicKey), 'PKIX_ED25519', noteKey(ORIGIN), `${url}/v2`),
  ],
  certificateAuthorities: [authority([ca.rootCertificate])],
  ctlogs: [log(ctLog.publicKey, ecdsa, sha256(ctLog.publicKey), url)],
  timestampAuthorities: [authority([tsa.intCertificate, tsa.rootCertificate])],
});
const service = (majorApiVersion, path = '') => [{ url: url + path, majorApiVersion, validFor: { start }, operator: 'loopback' }];
const signing = (version) => ({
  mediaType: 'application/vnd.dev.sigstore.signingconfig.v0.2+json',
  caUrls: service(1), oidcUrls: service(1), rekorTlogUrls: service(version), rekorTlogConfig: { selector: 'ANY' },
  ...(version === 1 ? {} : { tsaUrls: service(1, '/api/v1/timestamp'), tsaConfig: { selector: 'ANY' } }),
});
write('signing_1.json', signing(1));
write('signing_2.json', signing(2));
const pem = (key) => key.export({ format: 'pem', type: 'spki' });
write('rekor.pub', pem(keys.log.publicKey));
write('ctfe.pub', pem(keys.ct.publicKey));
const certificate = (bytes) => `-----BEGIN CERTIFICATE-----\n${base64(bytes).replace(/(.{64})/g, '$1\n')}\n-----END CERTIFICATE-----\n`;
write('fulcio.pem', certificate(ca.rootCertificate));
write('tsa.pem', certificate(tsa.intCertificate) + certificate(tsa.rootCertificate));
console.log(url);
process.stdin.resume().on('end', () => process.exit(0));
