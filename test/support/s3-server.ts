import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type S3Options, S3Store } from "../../src/registry/stores/s3.ts";
import { makeCertificates } from "./certificates.ts";
import type { TestStore } from "./stores.ts";
import { freePort, until } from "./wait.ts";

/**
 * S3 servers on loopback, each with an empty bucket, gone with all they stored when they are disposed.
 *
 * - s3rver comes with `npm ci`, so that `npm test` has an S3 server everywhere. It checks signatures, and knows no conditional
 *   writes, as some older production servers: so it is also the proof that we do without.
 * - versitygw is a production server in Go. Tests that need it run where MVM_TEST_VERSITYGW names the program; .ci/run builds it.
 */
export interface S3Server extends AsyncDisposable {
  readonly name: "s3rver" | "versitygw";
  readonly options: S3Options;
  /** PEM file of the private authority that signed its certificate; only with TLS. */
  readonly caFile?: string;
  /** What the server printed so far, to look for secrets in, and to see why it failed. */
  log(): string;
  /** The environment that makes mvmctl use this bucket. `endpoint` is another one in front of it, such as a fault proxy. */
  env(endpoint?: string): NodeJS.ProcessEnv;
}

const BUCKET = "templates";

/** The path of versitygw, if the tests are to run on it. */
export const VERSITYGW = process.env["MVM_TEST_VERSITYGW"] || undefined;

export async function startS3rver(): Promise<S3Server> {
  const directory = mkdtempSync(join(tmpdir(), "mvm-s3rver-"));
  // It knows this one account.
  const credentials = { accessKeyId: "S3RVER", secretAccessKey: "S3RVER" };
  const server = launch(process.execPath, [join(import.meta.dirname, "s3rver.ts"), directory, BUCKET], {});
  const port = await until("s3rver listens", () => /listening on port (\d+)/.exec(server.log())?.[1]);
  return serve("s3rver", server, `http://127.0.0.1:${port}`, credentials, directory);
}

/** @param tls with a certificate of a private authority, for `localhost` and 127.0.0.1 */
export async function startVersitygw({ tls = false } = {}): Promise<S3Server> {
  const directory = mkdtempSync(join(tmpdir(), "mvm-versitygw-"));
  mkdirSync(join(directory, "objects", BUCKET), { recursive: true });
  const certificates = tls ? await makeCertificates(directory) : undefined;
  const port = await freePort();
  const credentials = { accessKeyId: "test-key-id", secretAccessKey: "test-secret-which-no-log-may-show" };
  const args = ["--port", `127.0.0.1:${port}`, "--keep-alive", "--virtual-domain", `localhost:${port}`];
  if (certificates) args.push("--cert", certificates.certificate, "--key", certificates.key);
  const server = launch(VERSITYGW!, [...args, "posix", join(directory, "objects")], {
    ROOT_ACCESS_KEY: credentials.accessKeyId,
    ROOT_SECRET_KEY: credentials.secretAccessKey,
  });
  const endpoint = `${tls ? "https" : "http"}://${tls ? "localhost" : "127.0.0.1"}:${port}`;
  return serve("versitygw", server, endpoint, credentials, directory, certificates);
}

/** A server as a store of a test's own. */
export async function useS3Store(start: () => Promise<S3Server>, more: Partial<S3Options> = {}): Promise<TestStore> {
  const server = await start();
  const store = new S3Store({ ...server.options, ...more });
  return { store, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

interface Launched {
  readonly child: ChildProcess;
  readonly log: () => string;
}

function launch(program: string, args: readonly string[], env: NodeJS.ProcessEnv): Launched {
  // setpriv(1): the server ends with the tests, even when they are killed.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (piece: Buffer) => {
      text += piece.toString();
    });
  }
  child.on("error", (error) => {
    text += String(error);
  });
  return { child, log: () => text };
}

async function serve(
  name: S3Server["name"],
  { child, log }: Launched,
  endpoint: string,
  credentials: { accessKeyId: string; secretAccessKey: string },
  directory: string,
  certificates?: { ca: string; caFile: string },
): Promise<S3Server> {
  const options: S3Options = {
    endpoint: new URL(endpoint),
    bucket: BUCKET,
    region: "us-east-1",
    prefix: "",
    addressing: "path",
    credentials: async () => credentials,
    ...(certificates && { ca: certificates.ca }),
  };
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "close");
    }
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const probe = new S3Store({ ...options, retries: { attempts: 1 } });
    await until(`${name} answers`, async () => {
      if (child.exitCode !== null) return false;
      await probe.get("v1/none", 1, AbortSignal.timeout(1000));
      return true;
    });
  } catch (error) {
    await stop();
    throw new Error(`${name} did not start: ${log()}`, { cause: error });
  }
  return {
    name,
    options,
    log,
    ...(certificates && { caFile: certificates.caFile }),
    env: (other = endpoint) => ({
      MVM_TEMPLATE_REGISTRY_ENDPOINT: other,
      MVM_TEMPLATE_REGISTRY_BUCKET: BUCKET,
      MVM_TEMPLATE_REGISTRY_ACCESS_KEY_ID: credentials.accessKeyId,
      MVM_TEMPLATE_REGISTRY_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      ...(certificates && { MVM_TEMPLATE_REGISTRY_CA_FILE: certificates.caFile }),
    }),
    [Symbol.asyncDispose]: stop,
  };
}
