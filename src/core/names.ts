import { MvmError } from "./errors.ts";

declare const brand: unique symbol;
/** A checked template name: safe as a file name, a host name and a registry key. */
export type TemplateName = string & { readonly [brand]: "TemplateName" };
/** A checked instance name, of the same grammar. */
export type InstanceName = string & { readonly [brand]: "InstanceName" };
/** SHA-256 of a revision's manifest, 64 lower-case hexadecimal digits. */
export type RevisionId = string & { readonly [brand]: "RevisionId" };

/** One grammar for all names that become paths: no separators, no dot in front, at most 63 bytes. */
const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
/** Roles and profiles reach Nix attribute paths and the kernel command line, so they hold no dots or spaces. */
const LABEL = /^[A-Za-z_][A-Za-z0-9_-]{0,62}$/;
const REVISION = /^[0-9a-f]{64}$/;

function whyNotAName(text: string): string | undefined {
  if (NAME.test(text)) return undefined;
  if (text.length === 0) return "it is empty";
  if (text.length > 63) return `it has ${text.length} characters, and 63 is the most`;
  if (/[A-Z]/.test(text)) return "it has upper-case letters";
  if (!/^[a-z0-9]/.test(text)) return "it must begin with a letter or a digit";
  return "only a-z, 0-9, '.', '_' and '-' are allowed";
}

function checkName(kind: string, text: string): void {
  const why = whyNotAName(text);
  if (why === undefined) return;
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  throw new MvmError("INVALID_NAME", `'${printable(shown)}' is not a valid ${kind} name: ${why}`, {
    hint: "choose a name like my-service: a-z, 0-9, '.', '_', '-', at most 63 characters",
  });
}

/** Control characters in bad input must not reach a terminal. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\u2026]/g, "?");
}

/** @throws MvmError `INVALID_NAME` */
export function parseTemplateName(text: string): TemplateName {
  checkName("template", text);
  return text as TemplateName;
}

/** True if a directory entry can be a template or an instance: staging and hidden files are not. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/** @throws MvmError `INVALID_NAME` */
export function parseInstanceName(text: string): InstanceName {
  checkName("instance", text);
  return text as InstanceName;
}

/** A role or a profile. @throws MvmError `INVALID_NAME` */
export function parseLabel(kind: "role" | "profile", text: string): string {
  if (LABEL.test(text)) return text;
  throw new MvmError("INVALID_NAME", `'${printable(text.slice(0, 80))}' is not a valid ${kind}`, {
    hint: `a ${kind} begins with a letter and has letters, digits, '_' and '-', at most 63 characters`,
  });
}

/** @throws MvmError `INVALID_REVISION` */
export function parseRevisionId(text: string): RevisionId {
  if (REVISION.test(text)) return text as RevisionId;
  throw new MvmError("INVALID_REVISION", `'${printable(text.slice(0, 80))}' is not a revision id`, {
    hint: "a revision id is 64 hexadecimal digits; `mvmctl template info NAME` lists them",
  });
}

/** What people type of an id: shorter than this is more likely a slip than a revision. */
const MIN_PREFIX = 4;

/** The beginning of a revision's id, as somebody typed it. @throws MvmError `INVALID_REVISION` with this hint */
export function parseRevisionPrefix(text: string, hint: string): string {
  const prefix = text.toLowerCase();
  if (/^[0-9a-f]{1,64}$/.test(prefix) && prefix.length >= MIN_PREFIX) return prefix;
  throw new MvmError(
    "INVALID_REVISION",
    `'${printable(text.slice(0, 80))}' is not a revision: give at least ${MIN_PREFIX} hexadecimal digits of its id`,
    { hint },
  );
}

/** The beginning of a revision id that people see and type. */
export function shortRevision(id: RevisionId): string {
  return id.slice(0, 12);
}
