import assert from "node:assert/strict";
import { test } from "node:test";
import { MvmError } from "../../../core/errors.ts";
import { type Circumstances, s3Failure } from "./failures.ts";
import { Refusal } from "./refusal.ts";

const NOW: Circumstances = {
  doing: "list v1/",
  where: "s3://templates on s3.example.com",
  bucket: "templates",
  region: "us-east-1",
  origin: "https://s3.example.com",
  path: "",
  host: "s3.example.com",
  secrets: [],
};

function hintFor(error: unknown, now: Partial<Circumstances>): string {
  const failure = s3Failure(error, { ...NOW, ...now });
  assert.ok(failure instanceof MvmError);
  return failure.hint ?? "";
}

test("a bucket that is written into the endpoint, too, is found out", () => {
  for (const code of ["NoSuchBucket", "NoSuchKey"]) {
    const missing = new Refusal({ status: 404, headers: {} }, `<Error><Code>${code}</Code></Error>`);
    assert.match(hintFor(missing, { path: "/templates" }), /leave the path \/templates out/, code);
    assert.doesNotMatch(hintFor(missing, {}), /path/, code);
  }
});

test("a host that is not there because the bucket's name was put before it", () => {
  const unknown = Object.assign(new Error("no such host"), { code: "ENOTFOUND" });
  assert.match(hintFor(unknown, { host: "templates.s3.example.com" }), /MVM_TEMPLATE_REGISTRY_ADDRESSING=path/);
  assert.doesNotMatch(hintFor(unknown, {}), /ADDRESSING/);
});
