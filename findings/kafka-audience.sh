#!/usr/bin/env bash
# Apache Kafka 4.3.1: a broker that is told no audience to expect takes the tokens that name none, and refuses all others.
#
# Its documentation of sasl.oauthbearer.expected.audience says that the aud of a token is compared with it if it is set, and
# that a token without aud is accepted if it is not. Whoever reads that as "audiences are not looked at" finds every client
# refused: without the setting, a token that has an aud is refused, whatever it is. (The broker's own validator is asked,
# without a broker. Needs a JDK 17 and Maven.)
#
# Seen (setting; aud of the token: verdict):
#   none; none: accepted
#   none; kafka.test: refused, invalid_token
#   none; ["ANY","kafka.test"]: refused, invalid_token
#   kafka.test; kafka.test: accepted
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >pom.xml <<'EOP'
<project><modelVersion>4.0.0</modelVersion><groupId>ask</groupId><artifactId>ask</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-clients</artifactId><version>4.3.1</version></dependency>
<dependency><groupId>org.bitbucket.b_c</groupId><artifactId>jose4j</artifactId><version>0.9.6</version></dependency>
<dependency><groupId>com.fasterxml.jackson.core</groupId><artifactId>jackson-databind</artifactId><version>2.18.2</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
EOP
mvn -q -B -Dmaven.repo.local="$work/m2" dependency:copy-dependencies -DoutputDirectory=lib
cat >Ask.java <<'EOP'
import java.nio.file.*;
import java.util.*;
import javax.security.auth.callback.Callback;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.config.*;
import org.apache.kafka.common.security.oauthbearer.*;
import org.jose4j.jwk.*;
import org.jose4j.jws.JsonWebSignature;

public class Ask {
    static RsaJsonWebKey key;
    static String url;

    // ask says what the broker's own callback handler makes of a token with these claims beside those that it wants.
    static OAuthBearerValidatorCallback ask(Map<String, ?> settings, String claims) throws Exception {
        long now = System.currentTimeMillis() / 1000;
        JsonWebSignature token = new JsonWebSignature();
        token.setPayload("{\"iss\":\"https://issuer.test\",\"sub\":\"albert\",\"iat\":" + now + ",\"exp\":" + (now + 600) + claims + "}");
        token.setKey(key.getPrivateKey());
        token.setKeyIdHeaderValue("k");
        token.setAlgorithmHeaderValue("RS256");
        ConfigDef known = new ConfigDef();
        SaslConfigs.addClientSaslSupport(known);
        Map<String, Object> given = new HashMap<>(settings);
        given.put("sasl.oauthbearer.jwks.endpoint.url", url);
        given.put("sasl.oauthbearer.expected.issuer", "https://issuer.test");
        OAuthBearerValidatorCallbackHandler broker = new OAuthBearerValidatorCallbackHandler();
        broker.configure(known.parse(given), "OAUTHBEARER", List.of(
            new AppConfigurationEntry("ask", AppConfigurationEntry.LoginModuleControlFlag.REQUIRED, Map.of())));
        try {
            OAuthBearerValidatorCallback answer = new OAuthBearerValidatorCallback(token.getCompactSerialization());
            broker.handle(new Callback[] {answer});
            return answer;
        } finally {
            broker.close();
        }
    }

    public static void main(String[] args) throws Exception {
        key = RsaJwkGenerator.generateJwk(2048);
        key.setKeyId("k");
        Path keys = Path.of("jwks.json").toAbsolutePath();
        Files.writeString(keys, new JsonWebKeySet(key).toJson());
        url = keys.toUri().toString();
        System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", url);
        Map<String, List<String>> none = Map.of(), named = Map.of("sasl.oauthbearer.expected.audience", List.of("kafka.test"));
        show("none; none", ask(none, ""));
        show("none; kafka.test", ask(none, ",\"aud\":\"kafka.test\""));
        show("none; [\"ANY\",\"kafka.test\"]", ask(none, ",\"aud\":[\"ANY\",\"kafka.test\"]"));
        show("kafka.test; kafka.test", ask(named, ",\"aud\":\"kafka.test\""));
        System.exit(0);
    }

    static void show(String what, OAuthBearerValidatorCallback answer) {
        System.out.println(what + ": " + (answer.token() != null ? "accepted" : "refused, " + answer.errorStatus()));
    }
}
EOP
java -cp 'lib/*' Ask.java | tee seen
diff seen - <<'EOP'
none; none: accepted
none; kafka.test: refused, invalid_token
none; ["ANY","kafka.test"]: refused, invalid_token
kafka.test; kafka.test: accepted
EOP
