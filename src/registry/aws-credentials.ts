import { MvmError } from "../core/errors.ts";
import type { S3Credentials } from "./stores/s3.ts";

/** Asking a cloud's metadata service takes this long where there is none. */
const METADATA_TIMEOUT_MS = 1000;

/**
 * Credentials of AWS's default chain: AWS_ACCESS_KEY_ID, AWS_PROFILE with ~/.aws, SSO, web identity, a container's or a machine's
 * role. Loaded and asked when they are first needed, kept, and asked again when they end.
 */
export function chainCredentials(): () => Promise<S3Credentials> {
  let provider: (() => Promise<S3Credentials>) | undefined;
  return async () => {
    provider ??= await loadChain();
    try {
      return await provider();
    } catch (error) {
      const why =
        error instanceof Error && error.name === "CredentialsProviderError" ? "none were found" : "they failed";
      // The chain's own errors are not passed on: they may quote what a program or a file said.
      throw new MvmError(
        "REGISTRY_NOT_CONFIGURED",
        `there are no credentials for the registry: ${why} in AWS's default places`,
        {
          hint:
            "export MVM_TEMPLATE_REGISTRY_ACCESS_KEY_ID and MVM_TEMPLATE_REGISTRY_SECRET_ACCESS_KEY, or set up AWS's own " +
            "(`aws sts get-caller-identity` tells whether they work)",
        },
      );
    }
  };
}

async function loadChain(): Promise<() => Promise<S3Credentials>> {
  const { defaultProvider } = await import("@aws-sdk/credential-provider-node");
  return defaultProvider({ timeout: METADATA_TIMEOUT_MS, maxRetries: 0 });
}
