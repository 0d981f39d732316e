import { configPath, readConfig } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { readSigningKey, type SigningKey } from "./signatures.ts";

/** Public keys whose signatures are asked for; none means that none are. The registry has no say in it. */
export function trustedKeys({ paths }: Context): readonly string[] {
  return readConfig(paths).registry?.trustedKeys ?? [];
}

/** The key that `--sign` signs with. @throws MvmError `KEY_UNUSABLE` */
export function signingKey({ paths }: Context, file: string | undefined): SigningKey {
  const path = file ?? readConfig(paths).registry?.signingKeyFile;
  if (path !== undefined) return readSigningKey(path);
  throw new MvmError("KEY_UNUSABLE", "there is no key to sign with", {
    hint: `make one with \`mvmctl registry keygen FILE\`, and give it with --key FILE or as registry.signingKeyFile in ${configPath(paths)}`,
  });
}
