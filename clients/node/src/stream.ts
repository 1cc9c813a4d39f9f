// One Subscribe call: its events as they come, until its end. After `cancel` nothing is heard of it any more; it is cancelled too
// when its connection is left.
//
// A stream of grpc-js is a Readable, which would buffer what nobody takes. Here every event is taken the moment it comes:
// taking one starts handlers and returns at once, so nothing gathers in the stream. What gathers behind it is what the server
// has delivered and no Ack has settled, and that the session's credits bound. A program that is too busy to read leaves the
// bytes to HTTP/2, whose window stops the server.

import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import type { Connection } from "./connection.js";
import { JobwireError } from "./errors.js";
import {
  QueueServiceService,
  type SubscribeRequest,
  type SubscribeResponse,
} from "./generated/jobwire/v1/queue_service.js";

/** How a stream ended: by the server in order, with an error, or by `cancel`. */
export type StreamEnd = "ended" | "cancelled" | JobwireError;

export class EventStream {
  /** How it ended. Rejects only with what `onEvent` threw. */
  readonly over: Promise<StreamEnd>;
  /** Over which of the connection's channels it goes; none before it is made. */
  line: number | undefined;
  #call: ClientReadableStream<SubscribeResponse> | undefined;
  #isOver = false;
  #end!: (end: StreamEnd) => void;
  #break!: (error: unknown) => void;

  constructor(connection: Connection, request: SubscribeRequest, onEvent: (event: SubscribeResponse) => void) {
    this.over = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#break = reject;
    });
    void this.#follow(connection, request, onEvent);
  }

  /** Leaves the call; events that are on their way are not taken any more. */
  cancel(): void {
    this.#isOver = true;
    this.#end("cancelled");
    this.#call?.cancel();
  }

  async #follow(
    connection: Connection,
    request: SubscribeRequest,
    onEvent: (event: SubscribeResponse) => void,
  ): Promise<void> {
    let call: ClientReadableStream<SubscribeResponse>;
    try {
      call = await connection.stream(QueueServiceService.subscribe, request, () => this.cancel());
    } catch (error) {
      if (error instanceof JobwireError) this.#end(error);
      else this.#break(error);
      return;
    }
    // It stays: a call says CANCELLED after its cancellation, and an error that nobody listens to ends the process.
    call.on("error", (failure: ServiceError) => this.#end(connection.failed(failure)));
    this.#call = call;
    this.line = connection.line;
    if (this.#isOver) {
      call.cancel();
      return;
    }
    call.on("end", () => this.#end("ended"));
    call.on("data", (event: SubscribeResponse) => {
      if (this.#isOver) return;
      try {
        onEvent(event);
      } catch (error) {
        this.#break(error);
        this.cancel();
      }
    });
  }
}
