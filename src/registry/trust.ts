import { resolve } from "node:path";
import { configPath, readConfig } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { readSigningKey, type SigningKey } from "./signatures.ts";

/** Public keys whose signatures are asked for; none means that none are. The registry has no say in it. */
export function trustedKeys({ paths }: Context): readonly string[] {
  return readConfig(paths).registry?.trustedKeys ?? [];
}

/** The key that `--sign` signs with: `file`, or that of config.json, from there on. @throws MvmError `KEY_UNUSABLE` */
export function signingKey({ paths }: Context, file: string | undefined): SigningKey {
  if (file !== undefined) return readSigningKey(file);
  const stored = readConfig(paths).registry?.signingKeyFile;
  if (stored !== undefined) return readSigningKey(resolve(paths.dataDir, stored));
  throw new MvmError("KEY_UNUSABLE", "there is no key to sign with", {
    hint: `make one with \`mvmctl registry keygen FILE\`, and give it with --key FILE or as registry.signingKeyFile in ${configPath(paths)}`,
  });
}
