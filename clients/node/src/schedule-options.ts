// What may be said with `jobQueue.schedule`, in pg-boss's words, turned into a schedule of Jobwire's. As with a push, no option is
// dropped in silence.

import { specFrom } from "./convert.js";
import { InvalidArgument } from "./errors.js";
import { PublishRequest } from "./generated/jobwire/v1/queue_service.js";
import { MissedRuns, Schedule } from "./generated/jobwire/v1/schedule.js";
import { type PushOptions, refuse, termsFrom } from "./push-options.js";

/** What holds for each job of a schedule, and for the schedule itself. */
export interface ScheduleOptions extends Omit<PushOptions, "id" | "key" | "startAfter" | "startIn"> {
  /** The time zone by whose clocks the cron line is due, such as `Europe/Berlin`. Default: UTC. */
  tz?: string | undefined;
  /** Tells schedules of one queue apart: letters, digits, `_`, `-`, `.`, `:` or `/`. The key of its jobs is `singletonKey`. */
  key?: string | undefined;
  /** What becomes of due times that passed while nobody could see to them: nothing, one job for all, or one for each. Default `skip`. */
  missed?: "skip" | "once" | "all" | undefined;
}

const INSTEAD: Record<string, string> = {
  db: "a schedule is put by a call of its own, not in a transaction of yours",
  id: "each of its jobs has an id of its own",
  startAfter: "the cron line says when its jobs start",
  startIn: "the cron line says when its jobs start",
};

const MISSED = { skip: MissedRuns.SKIP, once: MissedRuns.ONCE, all: MissedRuns.ALL };

/** The name of a queue's schedule, the one of a key if there are several. */
export function scheduleName(queue: string, key = ""): string {
  return key === "" ? queue : `${queue}:${key}`;
}

/** A schedule as it travels; throws InvalidArgument for what has no counterpart. */
export function scheduleFrom(queue: string, cron: string, data: unknown, given: ScheduleOptions): Schedule {
  refuse(given, INSTEAD);
  const { tz, key, missed, ...job } = given;
  if (typeof cron !== "string") {
    throw new InvalidArgument(
      "cron: a line such as `0 3 * * *`; for other timings there is Client.admin.putSchedule of `jobwire`",
    );
  }
  if (missed !== undefined && !Object.hasOwn(MISSED, missed)) {
    throw new InvalidArgument(`missed: one of ${Object.keys(MISSED).join(", ")}, not ${String(missed)}`);
  }
  // Without an id: each time another job is made of it.
  const [spec] = PublishRequest.decode(specFrom({ ...termsFrom(job), data, id: "" })).jobs;
  return Schedule.fromPartial({
    name: scheduleName(queue, key),
    queue,
    job: spec,
    timing: { $case: "cron", value: { line: cron, timeZone: tz ?? "" } },
    missed: missed && MISSED[missed],
  });
}
