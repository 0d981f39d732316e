import { join } from "node:path";
import * as v from "valibot";
import { type DocumentKind, readDocument } from "../core/documents.ts";
import { writeUnsynced } from "./records.ts";
import type { RunRequest } from "./run-request.ts";

const FILE = "settings.json";
/** Variables may be secrets. For the same reason they are not in instance.json, which `ls --json` and `inspect` print. */
const MODE = 0o600;

const VolumeSchema = v.strictObject({ hostPath: v.string(), guestPath: v.string() });

/** settings.json: what an instance was asked to be started with and instance.json does not say. For `start`. */
const StartSettingsSchema = v.strictObject({
  version: v.literal(1),
  env: v.record(v.string(), v.string()),
  volumes: v.array(VolumeSchema),
  allow: v.array(v.string()),
  jail: v.boolean(),
  cold: v.boolean(),
});
export type StartSettings = v.InferOutput<typeof StartSettingsSchema>;
const StartSettingsDocument: DocumentKind<StartSettings> = {
  title: "instance's settings",
  version: 1,
  schema: StartSettingsSchema,
};

/** @throws MvmError `DISK_FULL`, `FILE_FAILED` */
export function writeStartSettings(directory: string, { env, volumes, allow, jail, cold }: RunRequest): void {
  const settings = { env, volumes: [...volumes], allow: [...(allow ?? [])], jail: jail === true, cold };
  writeUnsynced(directory, FILE, { version: 1, ...settings } satisfies StartSettings, MODE);
}

/** Undefined where a start was killed before it wrote them. @throws MvmError `CORRUPT_FILE` */
export function readStartSettings(directory: string): StartSettings | undefined {
  return readDocument(StartSettingsDocument, join(directory, FILE));
}
