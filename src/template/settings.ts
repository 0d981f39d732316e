import * as v from "valibot";
import { MvmError } from "../core/errors.ts";
import { absoluteFlake } from "./flake-reference.ts";
import { type TemplateSettings, TemplateSpecSchema } from "./spec.ts";

const SettingsSchema = v.partial(v.omit(TemplateSpecSchema, ["version", "name", "createdAt"]));

/**
 * Settings as a template keeps them: checked, and with the flake's place made absolute. What is not given stays away.
 * @throws MvmError `INVALID_FLAKE`, `FLAKE_NOT_FOUND`, `INVALID_SETTINGS`
 */
export function resolveSettings<T extends Partial<TemplateSettings>>(settings: T, cwd: string): T {
  const { flake } = settings;
  const resolved = flake === undefined ? settings : { ...settings, flake: absoluteFlake(flake, cwd) };
  // A program may hand in anything; what is wrong must not get into template.json.
  const result = v.safeParse(SettingsSchema, resolved, { abortEarly: true });
  if (result.success) return resolved;
  const [issue] = result.issues;
  throw new MvmError("INVALID_SETTINGS", `the template's settings are wrong: ${v.getDotPath(issue)}: ${issue.message}`);
}
