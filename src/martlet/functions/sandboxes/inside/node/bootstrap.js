'use strict';
// The runtime for Node.js: takes its function, polls the Lambda Runtime API, runs the handler with the semantics of Lambda's own.
//
// Started with the word "blank" it has no function yet: it loads what every function needs, connects to the Runtime API, and
// sleeps in a read of descriptor 3 until it is told its environment. It holds no privilege at any time.

const fs = require('fs');
const net = require('net');
const path = require('path');
const stream = require('stream');
const util = require('util');
const { pathToFileURL } = require('url');

const PREFIX = '/2018-06-01/runtime/';
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const HTTP_INTEGRATION = 'application/vnd.awslambda.http-integration-response';
const LEVELS = { TRACE: 1, DEBUG: 2, INFO: 3, WARN: 4, ERROR: 5, FATAL: 6 };

let requestId; // of the running event
let whenIdle = null; // what is to be done when the handler's event loop has nothing left
let initialising = true;

// --- the Runtime API --------------------------------------------------------------------------------------------------

/** One connection with requests in order; the server answers every one with Content-Length. */
class Client {
  constructor(host, port, connected) {
    this.waiting = [];
    this.data = Buffer.alloc(0);
    this.socket = net.connect({ host, port, noDelay: true }, connected);
    this.socket.on('data', (data) => this.received(data));
    this.socket.on('error', () => process.exit(1));
    this.socket.on('close', () => process.exit(1));
  }

  /** Write `text` (a request, or several) and call `answered(status, headers, body)` for each of `answers`. */
  send(text, ...answers) {
    this.waiting.push(...answers);
    this.socket.ref();
    this.socket.write(text);
  }

  received(data) {
    this.data = this.data.length ? Buffer.concat([this.data, data]) : data;
    for (;;) {
      const end = this.data.indexOf('\r\n\r\n');
      if (end < 0) return;
      const [line, ...fields] = this.data.latin1Slice(0, end).split('\r\n');
      const headers = {};
      for (const field of fields) {
        const colon = field.indexOf(':');
        headers[field.slice(0, colon).toLowerCase()] = field.slice(colon + 1).trim();
      }
      const begin = end + 4;
      const length = Number(headers['content-length'] || 0);
      if (this.data.length < begin + length) {
        if (length > 65536) this.expect(begin + length);
        return;
      }
      const body = this.data.subarray(begin, begin + length);
      this.data = this.data.subarray(begin + length);
      this.waiting.shift()(Number(line.split(' ')[1]), headers, body);
    }
  }

  /** A large event comes in many pieces: put them together once. */
  expect(size) {
    const parts = [this.data];
    let have = this.data.length;
    this.data = Buffer.alloc(0);
    const before = this.received;
    this.received = (data) => {
      parts.push(data);
      have += data.length;
      if (have < size) return;
      delete this.received;
      before.call(this, Buffer.concat(parts));
    };
  }
}

let client;
let address = '127.0.0.1:9001';
const get = (place) => `GET ${PREFIX}${place} HTTP/1.1\r\nHost: ${address}\r\n\r\n`;

function post(place, body, more = '') {
  const length = Buffer.byteLength(body);
  return `POST ${PREFIX}${place} HTTP/1.1\r\nHost: ${address}\r\nContent-Type: application/json\r\n${more}Content-Length: ${length}\r\n\r\n${body}`;
}

const ignore = () => {};

function next() {
  requestId = undefined;
  whenIdle = null;
  client.send(get('invocation/next'), invoked);
}

/** Answer the running event and ask for the next one, in one write. */
function answer(id, body) {
  whenIdle = null;
  requestId = undefined;
  client.send(post(`invocation/${id}/response`, body) + get('invocation/next'), ignore, invoked);
}

function header(error) {
  return `Lambda-Runtime-Function-Error-Type: ${String(error.errorType).replace(/[^\x20-\x7e]/g, '?').slice(0, 256)}\r\n`;
}

function fail(id, error) {
  const object = toObject(error);
  console.error('Invoke Error', formatted(error));
  whenIdle = null;
  requestId = undefined;
  client.send(post(`invocation/${id}/error`, JSON.stringify(object), header(object)) + get('invocation/next'), ignore, invoked);
}

/** Report an error that ends the process, then end it. */
function lastWords(object, code) {
  const place = initialising ? 'init/error' : `invocation/${requestId}/error`;
  if (!client || (!initialising && !requestId)) process.exit(code);
  const target = new net.Socket(); // the usual connection may be in the middle of a streamed answer
  target.on('error', () => process.exit(code));
  const [host, port] = address.split(':');
  target.connect({ host, port: Number(port), noDelay: true }, () => target.write(post(place, JSON.stringify(object), header(object))));
  target.on('data', () => process.exit(code));
  target.on('close', () => process.exit(code));
  setTimeout(() => process.exit(code), 500);
  if (streaming) client.socket.destroy();
}

// --- errors -----------------------------------------------------------------------------------------------------------

const isError = (value) =>
  util.types.isNativeError(value) || (value && value.name && value.message && value.stack && typeof value === 'object');

/** Lambda's error object. */
function toObject(error) {
  try {
    if (isError(error)) {
      return {
        errorType: String(error.name).replaceAll('\x7f', '%7F'),
        errorMessage: String(error.message).replaceAll('\x7f', '%7F'),
        trace: String(error.stack).replaceAll('\x7f', '%7F').split('\n'),
      };
    }
    return { errorType: typeof error, errorMessage: error.toString(), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
    };
  }
}

function formatted(error) {
  try {
    return '\t' + JSON.stringify(error, (_key, value) => (isError(value) ? { errorType: value.name, errorMessage: value.message, ...value, stack: String(value.stack).split('\n') } : value));
  } catch {
    return '\t' + JSON.stringify(toObject(error));
  }
}

function named(name, message, stack) {
  const error = new Error(message);
  error.name = name;
  error.stack = stack || `${name}: ${message}`;
  return error;
}

function onUncaught(error) {
  console.error('Uncaught Exception', formatted(error));
  lastWords(toObject(error), 129);
}

function onUnhandled(reason, promise) {
  const error = named('Runtime.UnhandledPromiseRejection', isError(reason) ? `${reason.name}: ${reason.message}` : String(reason));
  if (isError(reason)) error.stack = `Runtime.UnhandledPromiseRejection: ${reason.stack}`;
  error.reason = reason;
  error.promise = promise;
  const logged = { errorType: error.name, errorMessage: error.message, reason: toObject(reason), promise: {}, stack: error.stack.split('\n') };
  console.error('Unhandled Promise Rejection', '\t' + JSON.stringify(logged));
  lastWords(toObject(error), 128);
}

// --- the log ----------------------------------------------------------------------------------------------------------

let out = 1;

function writeOut(text) {
  const data = Buffer.from(text);
  let offset = 0;
  while (offset < data.length) {
    try {
      offset += fs.writeSync(out, data, offset);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

function patchConsole() {
  const json = (process.env.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';
  const least = json ? LEVELS[(process.env.AWS_LAMBDA_LOG_LEVEL || '').toUpperCase()] || 0 : 0;
  const text = (level, values) => `${new Date().toISOString()}\t${requestId}\t${level}\t${util.format(...values)}`.replace(/\n/g, '\r');
  const object = (level, values) => {
    const record = { timestamp: new Date().toISOString(), level, requestId };
    if (values.length === 1 && !isError(values[0])) record.message = values[0];
    else {
      record.message = util.format(...values);
      const error = values.find(isError);
      if (error) {
        record.errorType = error.name;
        record.errorMessage = error.message;
        record.stackTrace = String(error.stack).split('\n');
      }
    }
    try {
      return JSON.stringify(record);
    } catch {
      return JSON.stringify({ ...record, message: util.format(...values) });
    }
  };
  const line = json ? object : text;
  const method = (level) => (LEVELS[level] < least ? ignore : (...values) => writeOut(line(level, values) + '\n'));
  console.log = method('INFO');
  console.info = method('INFO');
  console.debug = method('DEBUG');
  console.warn = method('WARN');
  console.error = method('ERROR');
  console.trace = (...values) => {
    const holder = {};
    Error.captureStackTrace(holder, console.trace);
    method('TRACE')(util.format(...values) + '\n' + String(holder.stack).split('\n').slice(1).join('\n'));
  };
}

// --- streamed answers -------------------------------------------------------------------------------------------------

let streaming = null;

/** The handler's `responseStream`. Nothing is sent before the first write, so that its content type can be set. */
class ResponseStream extends stream.Writable {
  constructor(id, highWaterMark) {
    super({ highWaterMark: highWaterMark || 16384 });
    this.id = id;
    this.contentType = 'application/octet-stream';
    this.begun = false;
    this._onBeforeFirstWrite = null;
    this.failure = null;
    this.answered = new Promise((resolve) => (this.resolve = resolve));
  }

  setContentType(type) {
    if (this.begun) throw named('InvalidStreamingOperation', 'Cannot set content-type, too late.');
    this.contentType = type;
  }

  begin() {
    if (this.begun) return;
    this.begun = true;
    streaming = this;
    const type = String(this.contentType).replace(/[\r\n]/g, '');
    client.send(
      `POST ${PREFIX}invocation/${this.id}/response HTTP/1.1\r\nHost: ${address}\r\nContent-Type: ${type}\r\n` +
        'Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n' +
        'Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n',
      () => {
        streaming = null;
        this.resolve();
      },
    );
    if (this._onBeforeFirstWrite) this._onBeforeFirstWrite((data) => this.piece(data));
  }

  piece(data, done) {
    const bytes = typeof data === 'string' ? Buffer.from(data) : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    if (!bytes.length) {
      if (done) done();
      return;
    }
    client.socket.cork();
    client.socket.write(bytes.length.toString(16) + '\r\n');
    client.socket.write(bytes);
    client.socket.write('\r\n', done);
    client.socket.uncork();
  }

  _write(data, encoding, done) {
    this.begin();
    this.piece(data, () => done());
  }

  _final(done) {
    this.begin();
    let trailers = '';
    if (this.failure) {
      const body = Buffer.from(JSON.stringify(this.failure)).toString('base64');
      trailers = `${header(this.failure)}Lambda-Runtime-Function-Error-Body: ${body}\r\n`;
    }
    client.socket.write(`0\r\n${trailers}\r\n`, () => done());
  }

  _destroy(error, done) {
    if (this.begun && !this.writableFinished) client.socket.unref();
    done(error);
  }
}

globalThis.awslambda = {
  streamifyResponse(handler, options) {
    handler[STREAMING] = 'response';
    if (options && options.highWaterMark !== undefined) handler[HIGH_WATER_MARK] = parseInt(options.highWaterMark, 10);
    return handler;
  },
  HttpResponseStream: class HttpResponseStream {
    static from(underlying, prelude) {
      underlying.setContentType(HTTP_INTEGRATION);
      const text = JSON.stringify(prelude);
      underlying._onBeforeFirstWrite = (write) => {
        write(text);
        write(new Uint8Array(8));
      };
      return underlying;
    }
  },
};

// --- events -----------------------------------------------------------------------------------------------------------

let handler;

function makeContext(headers, callback, waits) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const parsed = (name) => (headers[name] ? JSON.parse(headers[name]) : undefined);
  const done = (error, result) => callback(error, result);
  return {
    get callbackWaitsForEmptyEventLoop() {
      return waits.value;
    },
    set callbackWaitsForEmptyEventLoop(value) {
      waits.value = value;
    },
    succeed: (result) => done(null, result),
    fail: (error) => done(error === undefined || error === null ? 'handled' : error),
    done,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: parsed('lambda-runtime-client-context'),
    identity: parsed('lambda-runtime-cognito-identity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

function invoked(status, headers, body) {
  if (status !== 200) process.exit(1);
  const id = headers['lambda-runtime-aws-request-id'];
  requestId = id;
  const trace = headers['lambda-runtime-trace-id'];
  if (trace) process.env._X_AMZN_TRACE_ID = trace;
  else delete process.env._X_AMZN_TRACE_ID;
  client.socket.unref(); // it must not keep the handler's event loop alive
  let event;
  try {
    event = JSON.parse(body.toString());
  } catch (error) {
    fail(id, error);
    return;
  }
  if (handler[STREAMING] === 'response') void serveStream(id, event, headers);
  else serve(id, event, headers);
}

function serve(id, event, headers) {
  let ended = false;
  const waits = { value: true };
  const finish = (error, result) => {
    if (ended) return;
    if (error !== undefined && error !== null) {
      ended = true;
      fail(id, error);
      return;
    }
    let text;
    try {
      text = JSON.stringify(result === undefined ? null : result);
      if (text === undefined) text = 'null';
    } catch {
      ended = true;
      fail(id, new Error('Unable to stringify response body'));
      return;
    }
    ended = true;
    answer(id, text);
  };
  const callback = (error, result) => {
    if (ended) return;
    if (!waits.value || error) finish(error, result);
    else whenIdle = () => finish(null, result);
  };
  const context = makeContext(headers, callback, waits);
  context.succeed = (result) => callback(null, result);
  context.done = callback;
  whenIdle = () => finish(null, null); // neither answered nor anything left to wait for: null, as in Lambda
  try {
    const result = handler(event, context, callback);
    if (result && typeof result.then === 'function') {
      result.then(
        (value) => finish(null, value),
        (error) => finish(error === undefined || error === null ? 'handled' : error),
      );
    }
  } catch (error) {
    finish(error === undefined || error === null ? 'handled' : error);
  }
}

async function serveStream(id, event, headers) {
  const out = new ResponseStream(id, handler[HIGH_WATER_MARK]);
  out.on('error', ignore);
  whenIdle = () => out.end();
  try {
    const context = makeContext(headers, ignore, { value: true });
    for (const name of ['succeed', 'fail', 'done', 'callbackWaitsForEmptyEventLoop']) delete context[name];
    const result = handler(event, out, context);
    if (!result || typeof result.then !== 'function') throw new Error('Streaming does not support non-async handlers.');
    if ((await result) !== undefined) console.warn('Streaming handlers ignore return values.');
    if (out.destroyed && !out.writableFinished) throw out.errored || new Error('The response stream was destroyed');
    await out.answered;
  } catch (error) {
    if (!out.begun) {
      fail(id, error);
      return;
    }
    console.error('Invoke Error', formatted(error));
    if (out.destroyed) {
      onUnhandled(error);
      return;
    }
    out.failure = toObject(error);
    if (!out.writableEnded) out.end();
    await out.answered;
  }
  next();
}

// --- the handler ------------------------------------------------------------------------------------------------------

async function load(file) {
  if (/\.mjs$/.test(file) || (/\.js$/.test(file) && isModule(path.dirname(file)))) return await import(pathToFileURL(file).href);
  return require(file);
}

/** Whether the nearest package.json says that .js files are ES modules. */
function isModule(folder) {
  for (;;) {
    try {
      return JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).type === 'module';
    } catch (error) {
      if (error.code !== 'ENOENT') return false;
    }
    const above = path.dirname(folder);
    if (above === folder) return false;
    folder = above;
  }
}

async function findModule(root, name) {
  const place = path.resolve(process.env.LAMBDA_TASK_ROOT, root, name);
  for (const extension of ['', '.js', '.mjs', '.cjs']) {
    const file = place + extension;
    if (fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return await load(file);
  }
  return require(require.resolve(name, { paths: [process.env.LAMBDA_TASK_ROOT, path.join(process.env.LAMBDA_TASK_ROOT, root)] }));
}

async function findHandler(text) {
  if (text.includes('..')) throw named('Runtime.MalformedHandlerName', `'${text}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`);
  const base = path.basename(text);
  const root = text.slice(0, text.length - base.length);
  const match = /^([^.]*)\.(.*)$/.exec(base);
  if (!match) throw named('Runtime.MalformedHandlerName', 'Bad handler');
  let found;
  try {
    found = await findModule(root, match[1]);
  } catch (error) {
    if (error instanceof SyntaxError) throw named('Runtime.UserCodeSyntaxError', String(error), String(error.stack));
    if (error && (error.code === 'MODULE_NOT_FOUND' || error.code === 'ERR_MODULE_NOT_FOUND')) {
      throw named('Runtime.ImportModuleError', `Error: ${error.message}`, String(error.stack));
    }
    throw error;
  }
  const pick = (from) => match[2].split('.').reduce((nested, key) => nested && nested[key], from);
  const target = pick(found) || pick(found.default);
  if (!target) throw named('Runtime.HandlerNotFound', `${text} is undefined or not exported`);
  if (typeof target !== 'function') throw named('Runtime.HandlerNotFound', `${text} is not a function`);
  return target;
}

async function begin() {
  patchConsole();
  process.on('uncaughtException', onUncaught);
  process.on('unhandledRejection', onUnhandled);
  process.on('beforeExit', () => {
    const idle = whenIdle;
    whenIdle = null;
    if (idle) idle();
  });
  try {
    handler = await findHandler(process.env._HANDLER);
  } catch (error) {
    console.error('Uncaught Exception', formatted(error));
    lastWords(toObject(error), 129);
    return;
  }
  initialising = false;
  next();
}

/** Read a whole assignment: JSON up to the end of the pipe. */
function assignment() {
  const parts = [];
  for (;;) {
    const part = Buffer.allocUnsafe(16384);
    const length = fs.readSync(3, part);
    if (!length) break;
    parts.push(part.subarray(0, length));
  }
  fs.closeSync(3);
  if (!parts.length) process.exit(0); // parked, and no longer wanted
  return JSON.parse(Buffer.concat(parts).toString());
}

let born = {}; // the environment as it is: to read process.env costs a call of the C library for each name

function become(environment) {
  for (const name in born) if (!(name in environment)) delete process.env[name];
  for (const name in environment) if (environment[name] !== born[name]) process.env[name] = environment[name];
  if (environment.NODE_PATH !== born.NODE_PATH) require('module').Module._initPaths();
  born = environment;
  process.chdir(environment.LAMBDA_TASK_ROOT);
}

function connect(then) {
  const [host, port] = address.split(':');
  client = new Client(host, Number(port), then);
}

/**
 * Live through a whole life once, with a function of our own: start, load, event, log, answer, error. What is executed for the
 * first time is slow in any process (code is compiled, memory is touched); so that is over when the real function comes.
 */
function rehearse(then) {
  const events = [{ warm: true, list: [1, 'two', null] }, 'text', 3, 'fail', 4];
  const headers =
    'Content-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: 00000000-0000-4000-8000-000000000000\r\n' +
    `Lambda-Runtime-Deadline-Ms: ${Date.now() + 3000}\r\nLambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:x:y:z\r\n`;
  const first = (born = { ...process.env });
  const own = { ...born, ...Object.fromEntries(Array.from({ length: 16 }, (_, n) => [`WARM_${n}`, `value ${n}`])) };
  const server = net.createServer((socket) => {
    let seen = '';
    socket.on('error', ignore);
    socket.on('data', (data) => {
      seen += data.toString('latin1');
      const asks = seen.includes('/next');
      if (seen.includes('/response') || seen.includes('/error')) socket.write('HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}');
      seen = '';
      if (asks && events.length) {
        const body = JSON.stringify(events.shift());
        socket.write(`HTTP/1.1 200 OK\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`);
      } else if (asks) {
        client.socket.removeAllListeners();
        client.socket.destroy();
        server.close();
        out = 1;
        client = handler = undefined;
        requestId = undefined;
        whenIdle = null;
        initialising = true;
        become({ ...first, LAMBDA_TASK_ROOT: __dirname });
        then();
      }
    });
  });
  out = fs.openSync('/dev/null', 'w');
  server.listen(0, '127.0.0.1', () => {
    address = `127.0.0.1:${server.address().port}`;
    connect(() => {
      become({ ...own, LAMBDA_TASK_ROOT: __dirname, _HANDLER: 'rehearsal.handler' });
      void begin();
    });
  });
}

function blank() {
  for (const name of ['uncaughtException', 'unhandledRejection', 'beforeExit']) process.removeAllListeners(name);
  address = '127.0.0.1:9001';
  connect(() => {
    become(assignment());
    void begin();
  });
}

if (process.argv[2] === 'blank') {
  process.argv.splice(2, 1);
  void import('data:text/javascript,').then(() => {
    new ResponseStream('', 0).destroy();
    rehearse(blank);
  });
} else {
  address = process.env.AWS_LAMBDA_RUNTIME_API;
  connect(() => void begin());
}
