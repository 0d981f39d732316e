import { existsSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import type { Context } from "../core/context.ts";
import { writeDocument } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";
import { readTextIfThere, renameUnlessTaken, syncDirectory } from "../core/files.ts";
import { parseLabel, parseTemplateName, type TemplateName } from "../core/names.ts";
import type { Paths } from "../core/paths.ts";
import { makeStagingDirectory, sweepStaging } from "../core/staging.ts";
import { resolveSettings } from "./settings.ts";
import { TEMPLATE_DEFAULTS, type TemplateSettings, type TemplateSpec, TemplateSpecDocument } from "./spec.ts";

/**
 * Registers a flake as a template. Of two that create one name, one wins.
 * @throws MvmError `TEMPLATE_EXISTS`, `FLAKE_NOT_FOUND`, `INVALID_FLAKE`, `INVALID_SETTINGS`
 */
export function createTemplate(
  ctx: Context,
  name: TemplateName,
  settings: TemplateSettings,
  cwd: string,
): TemplateSpec {
  const spec = newSpec(name, resolveSettings(settings, cwd));
  sweepStaging(ctx.paths.templates);
  publish(ctx.paths, spec);
  return spec;
}

/**
 * Registers one flake under several roles, as BASE-ROLE: all of them or none.
 * @throws MvmError `INVALID_ROLES`, `INVALID_NAME`, and as createTemplate
 */
export function createTemplates(
  ctx: Context,
  base: string,
  roles: readonly string[],
  settings: Omit<TemplateSettings, "role">,
  cwd: string,
): TemplateSpec[] {
  checkRoles(roles);
  const resolved = resolveSettings(settings, cwd);
  const specs = roles.map((role) =>
    newSpec(parseTemplateName(`${base}-${role}`), { ...resolved, role: parseLabel("role", role) }),
  );
  sweepStaging(ctx.paths.templates);
  // Looked at first, so that of a set that can't be made no part is ever seen.
  for (const { name } of specs) if (existsSync(ctx.paths.template(name as TemplateName))) throw templateExists(name);
  const published: TemplateSpec[] = [];
  try {
    for (const spec of specs) {
      publish(ctx.paths, spec);
      published.push(spec);
    }
  } catch (error) {
    // Somebody took one of the names since we looked.
    for (const { name } of published)
      rmSync(ctx.paths.template(name as TemplateName), { recursive: true, force: true });
    throw error;
  }
  return specs;
}

function checkRoles(roles: readonly string[]): void {
  const twice = roles.find((role, index) => roles.indexOf(role) !== index);
  if (roles.length > 0 && twice === undefined) return;
  throw new MvmError(
    "INVALID_ROLES",
    twice === undefined ? "no role was given" : `the role '${twice}' was given twice`,
    {
      hint: "give each role once: --roles worker,gateway",
    },
  );
}

/**
 * Registers the flake of the working directory (or of its subdirectory NAME) with default settings, if no template has
 * that name: so a fresh scaffold is built without further ado. Undefined where nothing was registered.
 * @throws MvmError `TEMPLATE_NOT_FOUND` for a flake of another name: what was typed is more likely a slip than a new template
 */
export function registerFromDirectory(ctx: Context, name: TemplateName, cwd: string): TemplateSpec | undefined {
  if (existsSync(ctx.paths.template(name))) return undefined;
  // The directory of that name first: it is what `template init NAME` made, whatever else lies around it.
  const directory = [join(cwd, name), cwd].find((path) => existsSync(join(path, "flake.nix")));
  if (directory === undefined) return undefined;
  requireName(directory, name);
  try {
    const spec = createTemplate(ctx, name, { ...TEMPLATE_DEFAULTS, flake: directory }, cwd);
    const { cpus, memMiB } = spec;
    ctx.report({
      kind: "note",
      text: `registered ${name}: ${spec.flake}, ${cpus} CPUs, ${memMiB} MiB (template edit changes it)`,
    });
    return spec;
  } catch (error) {
    if (error instanceof MvmError && error.code === "TEMPLATE_EXISTS") return undefined; // another build was faster
    throw error;
  }
}

/** As `template init` and the examples write it; any other flake goes by its directory's name. */
const FLAKE_NAME = /^\s*name = "([a-z0-9._-]+)";/gm;

function requireName(directory: string, name: TemplateName): void {
  const text = readTextIfThere(join(directory, "flake.nix")) ?? "";
  const names = [basename(directory), ...[...text.matchAll(FLAKE_NAME)].map((match) => match[1])];
  if (names.includes(name)) return;
  const [, named] = names;
  const other = named === undefined ? "" : `build it under its own name: mvmctl template build ${named}; `;
  throw new MvmError(
    "TEMPLATE_NOT_FOUND",
    `there is no template '${name}', and the flake.nix here is not called that`,
    {
      hint: `${other}to make it a template of this name: mvmctl template create ${name} --flake ${directory}`,
    },
  );
}

function newSpec(name: TemplateName, settings: TemplateSettings): TemplateSpec {
  const { flake, profile, role, cpus, memMiB, dataDiskMiB } = settings;
  return { version: 1, name, flake, profile, role, cpus, memMiB, dataDiskMiB, createdAt: new Date().toISOString() };
}

/** Makes the template's directory, with its spec in it, in one rename. @throws MvmError `TEMPLATE_EXISTS` */
function publish(paths: Paths, spec: TemplateSpec): void {
  const target = paths.template(spec.name as TemplateName);
  using staging = makeStagingDirectory(paths.templates, spec.name);
  writeDocument(TemplateSpecDocument, join(staging.path, "template.json"), spec);
  if (!renameUnlessTaken(staging.path, target)) throw templateExists(spec.name);
  syncDirectory(paths.templates);
}

function templateExists(name: string): MvmError {
  return new MvmError("TEMPLATE_EXISTS", `there is a template '${name}' already`, {
    hint: `choose another name, change it (mvmctl template edit ${name}), or remove it (mvmctl template delete ${name})`,
  });
}
