import { fileURLToPath } from "node:url";
import { readConfig } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { Store } from "./store.ts";

export async function openStore(ctx: Context): Promise<Store> {
  const endpoint = ctx.env["MVM_TEMPLATE_REGISTRY_ENDPOINT"] ?? readConfig(ctx.paths).registry?.endpoint;
  if (endpoint?.startsWith("file:")) {
    const { DirectoryStore } = await import("./stores/directory.ts");
    return new DirectoryStore(fileURLToPath(endpoint));
  }
  throw new MvmError("REGISTRY_NOT_CONFIGURED", "no registry is configured", {
    hint: "export MVM_TEMPLATE_REGISTRY_ENDPOINT=file:///srv/templates",
  });
}
export async function supportsConditions(_ctx: Context, _store: Store): Promise<boolean> {
  return true;
}
