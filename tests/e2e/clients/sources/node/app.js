exports.handler = async (event, context) => {
  console.log('asked for', event);
  if (event === 'fail') throw new TypeError('no good');
  if (event === 'lost') {
    Promise.reject(new Error('lost'));
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return { event, id: context.awsRequestId };
};
exports.stream = awslambda.streamifyResponse(async (event, out) => {
  out = awslambda.HttpResponseStream.from(out, { statusCode: 201, headers: { a: 'b' } });
  out.write('one ');
  if (event === 'fail') throw new Error('half-way');
  if (event === 'destroy') {
    await new Promise((resolve) => setTimeout(resolve, 50));
    out.destroy(new Error('destroyed'));
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  out.write('two');
  out.end();
});
