import assert from "node:assert/strict";
import { test } from "node:test";
import { QueueServiceService } from "jobwire/v1";

test("the generated stubs are offered under jobwire/v1", () => {
  assert.equal(QueueServiceService.publish.path, "/jobwire.v1.QueueService/Publish");
});
