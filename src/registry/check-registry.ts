import type { RegistrySettings } from "../core/config.ts";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import { probeConditions, probeKey } from "./conditions.ts";
import { registryPlace } from "./settings.ts";
import type { Store } from "./store.ts";
import { DirectoryStore } from "./stores/directory.ts";
import { S3Store } from "./stores/s3.ts";

/** One thing that has to be right for a registry to work. */
export interface RegistryCheck {
  readonly name: CheckName;
  readonly ok: boolean;
  /** What was found. */
  readonly detail: string;
  /** What to do about it, where it is not ok or could be better. */
  readonly fix?: string;
}

type CheckName =
  | "settings"
  | "endpoint"
  | "tls"
  | "credentials"
  | "bucket"
  | "list"
  | "write"
  | "read"
  | "clock"
  | "delete"
  | "conditional writes";

/** Somebody waits at a terminal: a server that is silent for this long is not well. */
const IDLE_MS = 10_000;
/** S3 refuses requests signed 15 minutes off; from here on it is worth a word. */
const SKEW_MS = 5 * 60 * 1000;

/**
 * Tries everything a push and a pull need, and says in words what is wrong. Stops at the first check that fails, except for
 * conditional writes, which can be done without. With `settings`, tries those instead of what is configured.
 * @throws only for what is no finding: an aborted signal, a bug
 */
export async function checkRegistry(ctx: Context, settings?: RegistrySettings): Promise<RegistryCheck[]> {
  const done: RegistryCheck[] = [];
  const pass = (name: CheckName, detail: string) => done.push({ name, ok: true, detail });
  let next: CheckName = "settings";
  let shownByList: readonly CheckName[] = [];
  const passShown = (names: readonly CheckName[]) => {
    for (const name of names) pass(name, SHOWN_BY_LIST[name] ?? "in order");
  };
  try {
    const place = placeToCheck(ctx, settings);
    const { store } = place;
    pass("settings", store.description);
    next = "list";
    shownByList = place.shownByList;
    await firstOf(store, ctx.signal);
    passShown(shownByList);
    shownByList = [];
    await checkObjects(store, ctx.signal, pass, (name) => {
      next = name;
    });
    next = "conditional writes";
    done.push(await checkConditions(store, ctx.signal));
  } catch (error) {
    ctx.signal.throwIfAborted();
    if (!(error instanceof MvmError)) throw error;
    const name = failedCheck(error, next);
    // Before a request is sent, nothing is shown.
    if (!["REGISTRY_NOT_CONFIGURED", "REGISTRY_SETTINGS"].includes(error.code))
      passShown(checksBefore(name, shownByList));
    const detail = [error.message, error.detail].filter(Boolean).join("; ");
    done.push({ name, ok: false, detail, ...(error.hint && { fix: error.hint }) });
  }
  return done;
}

/** What the first request, a list, shows to be right; in the order in which it would fail. */
const SHOWN_BY_LIST: { readonly [name in CheckName]?: string } = {
  endpoint: "answers",
  tls: "its certificate is trusted",
  credentials: "accepted",
  bucket: "is there",
  list: "allowed",
};

/** Clocks are compared while the credentials are checked. */
function checksBefore(name: CheckName, order: readonly CheckName[]): readonly CheckName[] {
  return order.slice(0, Math.max(0, order.indexOf(name === "clock" ? "credentials" : name)));
}

function placeToCheck(
  ctx: Context,
  settings: RegistrySettings | undefined,
): { store: Store; shownByList: readonly CheckName[] } {
  const place = settings ? registryPlace(ctx, settings) : registryPlace(ctx);
  if (place.kind === "directory") return { store: new DirectoryStore(place.root), shownByList: ["bucket", "list"] };
  const { endpoint } = place.options;
  const tls = endpoint.protocol === "https:" ? (["tls"] as const) : [];
  return {
    store: new S3Store({ ...place.options, idleMs: IDLE_MS, retries: { attempts: 1 } }),
    shownByList: ["endpoint", ...tls, "credentials", "bucket", "list"],
  };
}

async function firstOf(store: Store, signal: AbortSignal): Promise<void> {
  for await (const _object of store.list("v1/", signal)) return;
}

async function checkObjects(
  store: Store,
  signal: AbortSignal,
  pass: (name: CheckName, detail: string) => void,
  begin: (name: CheckName) => void,
): Promise<void> {
  const key = probeKey();
  const body = Buffer.from(key);
  begin("write");
  await store.put(key, body, {}, signal);
  pass("write", "allowed");
  try {
    begin("read");
    const back = await store.getRange(key, 0, body.length, signal);
    if (!back.equals(body)) throw new MvmError("REGISTRY_PROTOCOL", "what was read is not what was written");
    const info = await store.head(key, signal);
    pass("read", "allowed, and what was written comes back");
    begin("clock");
    pass("clock", checkedSkew((info?.modifiedMs ?? Date.now()) - Date.now()));
  } catch (error) {
    await store.delete(key, signal).catch(() => {}); // what went wrong before says more
    throw error;
  }
  begin("delete");
  await store.delete(key, signal);
  pass("delete", "allowed");
}

function checkedSkew(skewMs: number): string {
  const seconds = Math.round(Math.abs(skewMs) / 1000);
  if (Math.abs(skewMs) < SKEW_MS) return seconds < 2 ? "agrees with ours" : `${seconds} s from ours`;
  throw new MvmError("REGISTRY_CLOCK_SKEW", `it is ${seconds} s ${skewMs > 0 ? "ahead of" : "behind"} this machine's`, {
    hint: "set this machine's clock (`timedatectl set-ntp true`), or the server's",
  });
}

async function checkConditions(store: Store, signal: AbortSignal): Promise<RegistryCheck> {
  const { ifAbsent, ifMatch } = await probeConditions(store, signal);
  const name = "conditional writes";
  if (ifAbsent && ifMatch) return { name, ok: true, detail: "kept" };
  const ignored = [!ifAbsent && "If-None-Match", !ifMatch && "If-Match"].filter(Boolean).join(" and ");
  return {
    name,
    ok: true,
    detail: `the server ignores ${ignored}`,
    fix: "a server with conditional writes is safer where many push",
  };
}

/** Credentials' own codes of S3: with these, what is wrong is not what the credentials may do. */
const BAD_CREDENTIALS =
  /\b(InvalidAccessKeyId|XAdminUserNotFound|SignatureDoesNotMatch|ExpiredToken|InvalidToken|TokenRefreshRequired|AuthorizationHeaderMalformed)\b/;

/** Which check an error belongs to; what it says nothing about is the one that was being made. */
function failedCheck(error: MvmError, current: CheckName): CheckName {
  switch (error.code) {
    case "REGISTRY_NOT_CONFIGURED":
    case "REGISTRY_SETTINGS":
      return current === "settings" ? "settings" : "credentials";
    case "REGISTRY_UNREACHABLE":
    case "REGISTRY_PROTOCOL":
    case "REGISTRY_REDIRECT":
      return current === "list" ? "endpoint" : current;
    case "REGISTRY_TLS":
      return "tls";
    case "REGISTRY_CLOCK_SKEW":
      return "clock";
    case "REGISTRY_NO_BUCKET":
      return "bucket";
    case "REGISTRY_DENIED":
      return BAD_CREDENTIALS.test(error.detail ?? "") ? "credentials" : current;
    default:
      return current;
  }
}
