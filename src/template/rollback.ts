import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { replaceSymlink } from "../core/files.ts";
import { parseRevisionPrefix, type RevisionId, shortRevision, type TemplateName } from "../core/names.ts";
import { currentRevisionId, listRevisions, type StoredRevision } from "./revisions.ts";
import { loadSpec, withTemplateLock } from "./store.ts";

export interface RollbackOutcome {
  /** Undefined where the current revision was missing. */
  readonly from: RevisionId | undefined;
  readonly to: RevisionId;
}

/**
 * Makes an earlier revision the current one: the one built before the current, or the one whose id begins with
 * `revision`. Instances that run stay as they are, and no revision is removed.
 * @throws MvmError `REVISION_NOT_FOUND`, `AMBIGUOUS_REVISION`, `INVALID_REVISION`, `NOTHING_TO_ROLL_BACK`,
 *   `TEMPLATE_NOT_FOUND`, `LOCKED`
 */
export async function rollbackTemplate(ctx: Context, name: TemplateName, revision?: string): Promise<RollbackOutcome> {
  const { paths } = ctx;
  return withTemplateLock(ctx, name, `rolling back ${name}`, () => {
    loadSpec(paths, name);
    const revisions = listRevisions(paths, name);
    const from = currentRevisionId(paths, name);
    const to = revision === undefined ? revisionBefore(name, revisions, from) : revisionOf(name, revisions, revision);
    if (to === from) {
      throw new MvmError("NOTHING_TO_ROLL_BACK", `${shortRevision(to)} is the current revision of ${name} already`, {
        hint: `\`mvmctl template info ${name}\` lists the others`,
      });
    }
    replaceSymlink(paths.current(name), join("revisions", to));
    return { from, to };
  });
}

/** @param revisions the newest first */
function revisionBefore(
  name: TemplateName,
  revisions: readonly StoredRevision[],
  current: RevisionId | undefined,
): RevisionId {
  const index = revisions.findIndex(({ id }) => id === current);
  const before = revisions[index + 1]?.id;
  if (before) return before;
  const why =
    revisions.length === 0
      ? `template ${name} was never built`
      : `template ${name} has no revision before the current one`;
  throw new MvmError("NOTHING_TO_ROLL_BACK", why, {
    hint:
      revisions.length === 0
        ? `build it: mvmctl template build ${name}`
        : `\`mvmctl template info ${name}\` lists its revisions`,
  });
}

/** @throws MvmError `REVISION_NOT_FOUND`, `AMBIGUOUS_REVISION`, `INVALID_REVISION` */
export function revisionOf(name: TemplateName, revisions: readonly StoredRevision[], typed: string): RevisionId {
  const hint = `\`mvmctl template info ${name}\` lists its revisions`;
  const prefix = parseRevisionPrefix(typed, hint);
  const matches = revisions.filter(({ id }) => id.startsWith(prefix));
  const [match, another] = matches;
  if (match && !another) return match.id;
  if (!match) throw new MvmError("REVISION_NOT_FOUND", `template ${name} has no revision ${prefix}`, { hint });
  const ids = matches.map(({ id }) => shortRevision(id)).join(", ");
  throw new MvmError("AMBIGUOUS_REVISION", `'${prefix}' is the beginning of ${matches.length} revisions: ${ids}`, {
    hint: "give more of its digits",
  });
}
