import { MvmError } from "../../core/errors.ts";

/**
 * What a key may look like: short segments that begin with a letter or digit. So a key never needs escaping in an URL, never
 * leaves a directory, and is never taken for one of a store's own hidden files.
 */
const SEGMENT = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}";
const KEY = new RegExp(`^${SEGMENT}(?:/${SEGMENT}){0,15}$`);
const PREFIX = new RegExp(`^(?:${SEGMENT}/){0,15}(?:${SEGMENT})?$`);

/** True for text that is a key. */
export function isKey(text: string): boolean {
  return KEY.test(text);
}

/** @throws MvmError `INVALID_REGISTRY_KEY` */
export function checkKey(key: string): string {
  if (isKey(key)) return key;
  throw invalid("name of an object in a registry", key);
}

/** The beginning of keys: empty, or a key that may end in `/`. @throws MvmError `INVALID_REGISTRY_KEY` */
export function checkKeyPrefix(prefix: string): string {
  if (PREFIX.test(prefix)) return prefix;
  throw invalid("beginning of names in a registry", prefix);
}

function invalid(what: string, text: string): MvmError {
  return new MvmError("INVALID_REGISTRY_KEY", `${JSON.stringify(text.slice(0, 200))} is no ${what}`, {
    hint: "letters, digits, '.', '_' and '-', in parts separated by '/'",
  });
}
