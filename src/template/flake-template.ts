import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { basename } from "node:path";
import type { Context } from "../core/context.ts";
import { parseTemplateName, type TemplateName } from "../core/names.ts";
import { createTemplate } from "./create.ts";
import { absoluteFlake } from "./flake-reference.ts";
import { TEMPLATE_DEFAULTS } from "./spec.ts";
import { loadSpec } from "./store.ts";

/**
 * The template that stands for a flake which was named directly (`run --flake`): registered under the flake's name, so
 * that the next run of the same flake finds its revision.
 */
export function templateOfFlake(ctx: Context, flake: string, cwd: string): TemplateName {
  const reference = absoluteFlake(flake, cwd);
  const base =
    basename(reference.replace(/[?#].*$/, ""))
      .toLowerCase()
      .replace(/[^a-z0-9._-]+/g, "-")
      .replace(/^[^a-z0-9]+/, "") || "flake";
  const name = parseTemplateName(base.slice(0, 50));
  const taken = existsSync(ctx.paths.template(name));
  if (taken && loadSpec(ctx.paths, name).flake === reference) return name;
  const unique = taken
    ? parseTemplateName(`${name}-${createHash("sha256").update(reference).digest("hex").slice(0, 8)}`)
    : name;
  if (!existsSync(ctx.paths.template(unique))) {
    createTemplate(ctx, unique, { ...TEMPLATE_DEFAULTS, flake: reference }, cwd);
    ctx.report({ kind: "note", text: `registered ${reference} as the template ${unique}` });
  }
  return unique;
}
