package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.Map;

public class App implements RequestHandler<Map<String, Object>, Map<String, Object>> {
  @Override
  public Map<String, Object> handleRequest(Map<String, Object> event, Context context) {
    System.out.println("asked for " + event);
    if (event.containsKey("fail")) throw new IllegalStateException("no good");
    return Map.of("event", event, "id", context.getAwsRequestId());
  }
}
