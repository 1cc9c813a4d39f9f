// To whom the client says what happens to it. Any logger of this shape will do, such as console; one that takes the fields first,
// such as pino, has to be wrapped.

/** Takes a line for people and, beside it, fields for machines. */
export interface Logger {
  debug(message: string, fields?: object): void;
  info(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  error(message: string, fields?: object): void;
}

/** The logger of those who gave none: warnings and errors go to the console, the rest nowhere. */
export const defaultLogger: Logger = {
  debug() {},
  info() {},
  warn: (message, fields) => console.warn(...line(message, fields)),
  error: (message, fields) => console.error(...line(message, fields)),
};

function line(message: string, fields: object | undefined): unknown[] {
  return fields === undefined ? [`jobwire: ${message}`] : [`jobwire: ${message}`, fields];
}

/** The same logger, whose failures stop nobody's work. */
export function harmless(logger: Logger): Logger {
  const tried = (level: keyof Logger) => (message: string, fields?: object) => {
    try {
      // Console would write `undefined` behind the line.
      if (fields === undefined) logger[level](message);
      else logger[level](message, fields);
    } catch {
      // There is nobody to tell.
    }
  };
  return { debug: tried("debug"), info: tried("info"), warn: tried("warn"), error: tried("error") };
}
