import { join } from "node:path";
import * as v from "valibot";
import { type DocumentKind, readDocument, writeDocument } from "./documents.ts";
import { ensureDirectory } from "./files.ts";
import type { Paths } from "./paths.ts";

/** Messages of our own: valibot's repeat what is there, and that may be a secret. */
const LENGTH = "it has to have 1 to 4096 characters";
const text = v.pipe(v.string("it has to be a string, in quotes"), v.minLength(1, LENGTH), v.maxLength(4096, LENGTH));
const listOf = (item: v.GenericSchema<unknown, string>) => v.array(item, "it has to be a list of strings, in brackets");
const publicKey = v.pipe(
  text,
  v.regex(/^[A-Za-z0-9+/]{43}=$/, "it has to be a public key, as `mvmctl registry keygen` prints it"),
);

/** An object that has none but these entries, and says which if it has. */
function settings<const T extends v.ObjectEntries>(entries: T) {
  return v.strictObject(entries, ({ expected }) =>
    expected === "never"
      ? `there is no such setting; those that there are: ${Object.keys(entries).join(", ")}`
      : "it has to be an object, in braces",
  );
}

/** Where templates are shared; docs/registry.md explains each. The environment's MVM_TEMPLATE_REGISTRY_… come first. */
const RegistrySettingsSchema = settings({
  endpoint: v.optional(text),
  bucket: v.optional(text),
  region: v.optional(text),
  prefix: v.optional(text),
  accessKeyId: v.optional(text),
  secretAccessKey: v.optional(text),
  sessionToken: v.optional(text),
  /** PEM file of the certificate authority that signed the endpoint's certificate. */
  caFile: v.optional(text),
  /** Whether the bucket is in the path (`host/bucket/key`) or in the name (`bucket.host/key`). */
  addressing: v.optional(v.picklist(["path", "virtual-host"], 'it has to be "path" or "virtual-host"')),
  /** Public keys, one of which must have signed what is pulled. */
  trustedKeys: v.optional(listOf(publicKey)),
  /** The private key file that `push --sign` uses. */
  signingKeyFile: v.optional(text),
});

export type RegistrySettings = v.InferOutput<typeof RegistrySettingsSchema>;
const line = v.pipe(text, v.regex(/^[^\n;]+$/, "one line without ';'"));
const word = v.pipe(text, v.regex(/^[^\s-]\S*$/, "no spaces"));

/** What Nix is told beside its own nix.conf; docs/distributed-builds.md. */
export const NixSettingsSchema = settings({
  /** Machines that build for this one, each as in Nix's `builders`: `ssh-ng://host x86_64-linux`, or `@/file`. */
  builders: v.optional(listOf(line)),
  /** Binary caches, beside those of nix.conf. */
  substituters: v.optional(listOf(word)),
  /** Keys that their content is signed with. */
  trustedPublicKeys: v.optional(listOf(word)),
  /** A store where images are built, instead of this machine's; they are copied from there. */
  store: v.optional(word),
});
export type NixSettings = v.InferOutput<typeof NixSettingsSchema>;

/** config.json in the data directory: what a user decided for every command. */
export const ConfigSchema = settings({
  version: v.literal(1),
  registry: v.optional(RegistrySettingsSchema),
  nix: v.optional(NixSettingsSchema),
});
export type Config = v.InferOutput<typeof ConfigSchema>;

const ConfigDocument: DocumentKind<Config> = {
  title: "configuration",
  version: 1,
  schema: ConfigSchema,
  hint: "mend it in an editor: docs/registry.md and docs/distributed-builds.md explain the settings",
};

export function configPath(paths: Paths): string {
  return join(paths.dataDir, "config.json");
}

/** The configuration; an empty one where there is no file. @throws MvmError `CORRUPT_FILE` naming the key, `NEWER_VERSION` */
export function readConfig(paths: Paths): Config {
  return readDocument(ConfigDocument, configPath(paths)) ?? { version: 1 };
}

/** Replaces the configuration. Only its owner may read the file: it may hold credentials. */
export function writeConfig(paths: Paths, config: Config): void {
  ensureDirectory(paths.dataDir);
  writeDocument(ConfigDocument, configPath(paths), config, { mode: 0o600 });
}
