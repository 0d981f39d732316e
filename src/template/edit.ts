import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { TemplateName } from "../core/names.ts";
import { pendingChanges } from "./pending-changes.ts";
import { currentRevision } from "./revisions.ts";
import { resolveSettings } from "./settings.ts";
import type { TemplateSettings, TemplateSpec } from "./spec.ts";
import { loadSpec, saveSpec, withTemplateLock } from "./store.ts";

export interface EditOutcome {
  readonly spec: TemplateSpec;
  /** What differs from the current revision until the next build; nothing if there is none. */
  readonly pendingChanges: string[];
}

/**
 * Changes a template's settings. Its revisions stay as they are: the next build brings the change about.
 * @throws MvmError `NOTHING_TO_DO`, `TEMPLATE_NOT_FOUND`, `FLAKE_NOT_FOUND`, `INVALID_FLAKE`, `INVALID_SETTINGS`, `LOCKED`
 */
export async function editTemplate(
  ctx: Context,
  name: TemplateName,
  changes: Partial<TemplateSettings>,
  cwd: string,
): Promise<EditOutcome> {
  return withTemplateLock(ctx, name, `editing ${name}`, () => {
    const old = loadSpec(ctx.paths, name);
    const wanted = Object.entries(resolveSettings(changes, cwd)).filter(([, value]) => value !== undefined);
    const different = wanted.filter(([field, value]) => old[field as keyof TemplateSettings] !== value);
    if (different.length === 0) throw nothingToDo(name, wanted.length > 0);
    const spec: TemplateSpec = { ...old, ...Object.fromEntries(different) };
    saveSpec(ctx.paths, spec);
    return { spec, pendingChanges: pendingIn(ctx, name, spec) };
  });
}

function nothingToDo(name: TemplateName, sameValues: boolean): MvmError {
  const why = sameValues ? `template ${name} has these settings already` : "no setting was given to change";
  return new MvmError("NOTHING_TO_DO", why, {
    hint: `give a new value with --flake, --profile, --role, --cpus, --mem or --data-disk; \`mvmctl template info ${name}\` shows what it has`,
  });
}

function pendingIn({ paths }: Context, name: TemplateName, spec: TemplateSpec): string[] {
  try {
    const current = currentRevision(paths, name);
    return current ? pendingChanges(spec, current) : [];
  } catch (error) {
    if (error instanceof MvmError) return []; // a damaged revision keeps nobody from editing
    throw error;
  }
}
