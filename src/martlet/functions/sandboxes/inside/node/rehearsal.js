'use strict';
// The function that a blank process runs before it has one; see `rehearse` in bootstrap.js.

exports.handler = async (event, context) => {
  console.log('rehearsal', event, context.getRemainingTimeInMillis());
  if (event === 'fail') throw new Error('rehearsed');
  return { event, id: context.awsRequestId };
};
