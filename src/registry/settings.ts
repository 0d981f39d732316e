import { readFileSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { configPath, type RegistrySettings, readConfig } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import { MvmError, messageOf } from "../core/errors.ts";
import { chainCredentials } from "./aws-credentials.ts";
import type { Store } from "./store.ts";
import { DirectoryStore } from "./stores/directory.ts";
import { type S3Credentials, type S3Options, S3Store } from "./stores/s3.ts";

const ENV = "MVM_TEMPLATE_REGISTRY_";

/** The environment's variables, and what each sets. They come before config.json's `registry`. */
const VARIABLES = {
  ENDPOINT: "endpoint",
  BUCKET: "bucket",
  REGION: "region",
  PREFIX: "prefix",
  ACCESS_KEY_ID: "accessKeyId",
  SECRET_ACCESS_KEY: "secretAccessKey",
  SESSION_TOKEN: "sessionToken",
  CA_FILE: "caFile",
  ADDRESSING: "addressing",
} as const;

/** Where the registry is, checked. */
export type RegistryPlace =
  | { readonly kind: "directory"; readonly root: string }
  | { readonly kind: "s3"; readonly options: S3Options };

/** The store that the settings name. @throws MvmError `REGISTRY_NOT_CONFIGURED`, `REGISTRY_SETTINGS` */
export async function openStore(ctx: Context): Promise<Store> {
  const place = registryPlace(ctx);
  return place.kind === "directory" ? new DirectoryStore(place.root) : new S3Store(place.options);
}

/**
 * What the environment and config.json say, checked; nothing is asked over the network. With `settings`, what they say instead.
 * @throws as openStore
 */
export function registryPlace(ctx: Context, settings: Texts = mergedSettings(ctx)): RegistryPlace {
  const endpoint = endpointOf(settings.endpoint);
  if (endpoint.protocol === "file:") return { kind: "directory", root: directoryOf(endpoint) };
  const bucket = required(settings, "bucket", "BUCKET", /^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/, "a bucket's name");
  return {
    kind: "s3",
    options: {
      endpoint,
      bucket,
      region: regionOf(settings.region ?? ctx.env["AWS_REGION"] ?? ctx.env["AWS_DEFAULT_REGION"]),
      prefix: prefixOf(settings.prefix),
      addressing: addressingOf(settings.addressing ?? usualAddressing(endpoint, bucket)),
      credentials: sendable(credentialsOf(settings)),
      ...(settings.caFile === undefined ? {} : { ca: readCertificates(settings.caFile) }),
    },
  };
}

type Texts = { readonly [key in (typeof VARIABLES)[keyof typeof VARIABLES]]?: string | undefined };

/** Credentials belong together: a part of the environment's is never used with a part of the file's. */
const CREDENTIALS = ["accessKeyId", "secretAccessKey", "sessionToken"] as const;

function mergedSettings({ paths, env }: Context): Texts {
  const given = Object.fromEntries(
    Object.entries(VARIABLES).flatMap(([name, key]) => {
      const value = env[ENV + name]?.trim(); // what comes from a file often has a line break at its end
      return value ? [[key, value]] : [];
    }),
  ) as Texts;
  const stored: RegistrySettings = { ...readConfig(paths).registry };
  if (CREDENTIALS.some((key) => given[key])) for (const key of CREDENTIALS) delete stored[key];
  const merged: Texts = { ...stored, ...given };
  if (merged.endpoint !== undefined) return merged;
  throw new MvmError("REGISTRY_NOT_CONFIGURED", "there is no registry to share templates through", {
    hint: `export ${ENV}ENDPOINT=file:///srv/templates (a directory), or an S3 endpoint with ${ENV}BUCKET; or set them in ${configPath(paths)}`,
  });
}

function invalid(message: string, hint: string): MvmError {
  return new MvmError("REGISTRY_SETTINGS", message, { hint });
}

/**
 * The address of a registry. Its text is never repeated in an error: people put secrets into URLs.
 * @throws MvmError `REGISTRY_SETTINGS`
 */
export function endpointOf(text = ""): URL {
  const url = URL.parse(text);
  const examples = "an endpoint is https://s3.example.com, http://127.0.0.1:9000 or file:///srv/templates";
  if (!url || !["http:", "https:", "file:"].includes(url.protocol)) {
    const hint = text.startsWith("/") ? `a directory is written file://${text}` : examples;
    throw invalid("the endpoint is no address of a registry", hint);
  }
  if (url.username || url.password) {
    throw invalid(
      "the endpoint must not hold credentials",
      `set ${ENV}ACCESS_KEY_ID and ${ENV}SECRET_ACCESS_KEY instead`,
    );
  }
  if (url.search || url.hash) throw invalid("the endpoint ends with '?' or '#'", examples);
  if (!/^[A-Za-z0-9/._~-]*$/.test(url.pathname) && url.protocol !== "file:") {
    throw invalid("the path in the endpoint has characters that it can't have", examples);
  }
  return url;
}

/** The names of the environment's variables that come before config.json now. */
export function variablesSet(env: NodeJS.ProcessEnv): string[] {
  return Object.keys(VARIABLES)
    .map((name) => ENV + name)
    .filter((name) => env[name]);
}

function directoryOf(endpoint: URL): string {
  if (endpoint.hostname) {
    throw invalid(
      "the endpoint names a host in a file: address",
      `a directory has three slashes: file:///${endpoint.hostname}${endpoint.pathname}`,
    );
  }
  try {
    return fileURLToPath(endpoint);
  } catch (cause) {
    throw invalid(`the endpoint is no directory: ${messageOf(cause)}`, "a directory is file:///srv/templates");
  }
}

function required(settings: Texts, key: keyof Texts, variable: string, pattern: RegExp, what: string): string {
  const value = settings[key];
  if (value === undefined) {
    throw new MvmError("REGISTRY_NOT_CONFIGURED", `there is no ${ENV}${variable}, which an S3 registry needs`, {
      hint: `export ${ENV}${variable}=…`,
    });
  }
  if (pattern.test(value)) return value;
  throw invalid(
    `${ENV}${variable} '${value.slice(0, 80)}' is not ${what}`,
    "2 to 255 letters, digits, '.', '-' and '_'",
  );
}

function regionOf(text = "us-east-1"): string {
  if (/^[A-Za-z0-9_-]{1,64}$/.test(text)) return text;
  throw invalid(`${ENV}REGION '${text.slice(0, 40)}' is no region`, "a region is like eu-central-1");
}

/** Slashes at the ends are forgiven. */
function prefixOf(text = ""): string {
  const prefix = text.replace(/^\/+|\/+$/g, "");
  if (/^(?:[A-Za-z0-9][A-Za-z0-9._-]*(?:\/(?!$)|$))*$/.test(prefix) && prefix.length <= 200) return prefix;
  throw invalid(
    `${ENV}PREFIX '${text.slice(0, 80)}' is no beginning of keys`,
    "letters, digits, '.', '-' and '_', in parts separated by '/'",
  );
}

/** AWS wants the bucket in the host's name, where its certificates cover no further dots; others often know the path only. */
function usualAddressing(endpoint: URL, bucket: string): "path" | "virtual-host" {
  return endpoint.hostname.endsWith(".amazonaws.com") && !bucket.includes(".") ? "virtual-host" : "path";
}

function addressingOf(text: string): "path" | "virtual-host" {
  if (text === "path" || text === "virtual-host") return text;
  throw invalid(`${ENV}ADDRESSING '${text.slice(0, 40)}' is neither 'path' nor 'virtual-host'`, "use one of the two");
}

function credentialsOf({ accessKeyId, secretAccessKey, sessionToken }: Texts): () => Promise<S3Credentials> {
  if ((accessKeyId ?? secretAccessKey ?? sessionToken) === undefined) return chainCredentials();
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const missing = accessKeyId === undefined ? "ACCESS_KEY_ID" : "SECRET_ACCESS_KEY";
    throw new MvmError("REGISTRY_NOT_CONFIGURED", `there is only a part of a key: ${ENV}${missing} is not set`, {
      hint: "set all its parts in one place, the environment or config.json; or none, and AWS's default credentials are used",
    });
  }
  const credentials = { accessKeyId, secretAccessKey, sessionToken };
  return async () => credentials;
}

/** What a header can't carry would be a failure of HTTP, in words that help nobody. */
const SENDABLE = {
  accessKeyId: { what: "access key's id", pattern: /^[\x21-\x2b\x2d-\x7e]+$/ },
  secretAccessKey: { what: "secret access key", pattern: /^\P{Cc}+$/u },
  sessionToken: { what: "session token", pattern: /^[\x21-\x7e]+$/ },
} as const;

function sendable(provider: () => Promise<S3Credentials>): () => Promise<S3Credentials> {
  return async () => {
    const credentials = await provider();
    for (const key of CREDENTIALS) {
      const { what, pattern } = SENDABLE[key];
      if (credentials[key] === undefined || pattern.test(credentials[key])) continue;
      throw invalid(
        `the ${what} has a character that none can have`,
        "see whether it was copied with a space or a line break",
      );
    }
    return credentials;
  };
}

function readCertificates(path: string): string {
  if (!isAbsolute(path)) throw invalid(`${ENV}CA_FILE '${path}' is not absolute`, `write ${resolve(path)}`);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new MvmError("REGISTRY_SETTINGS", `${ENV}CA_FILE ${path} can't be read: ${messageOf(cause)}`, {
      hint: "name a PEM file with the authority's certificate",
      cause,
    });
  }
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw invalid(`${ENV}CA_FILE ${path} holds no certificate`, "it has to be a PEM file: -----BEGIN CERTIFICATE-----");
}
