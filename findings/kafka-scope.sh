#!/usr/bin/env bash
# Apache Kafka 4.3.1: a token with the scope "a b" has one scope, whose name is "a b".
#
# OAuth 2 (RFC 6749, 3.3) and the profile of JWTs for it (RFC 9068) write scopes into one string with spaces between them,
# and so do SciTokens and WLCG. The broker's validator makes a set of one element of that; only a JSON list, which those
# do not have, becomes several. Nothing is refused and nothing is logged, but whoever looks for "a" in that set, looks in vain.
# (The broker's own validator is asked, without a broker. Needs a JDK 17 and Maven.)
#
# Seen (claim: the scopes of the token that was accepted, each in quotes):
#   "a b": 1, "a b"
#   ["a","b"]: 2, "a" "b"
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
        Map<String, List<String>> settings = Map.of("sasl.oauthbearer.expected.audience", List.of("kafka.test"));
        for (String scope : List.of("\"a\"", "\"a b\"", "[\"a\",\"b\"]")) {
            SortedSet<String> got = new TreeSet<>(ask(settings, ",\"aud\":\"kafka.test\",\"scope\":" + scope).token().scope());
            System.out.println(scope + ": " + got.size() + ", \"" + String.join("\" \"", got) + "\"");
        }
        System.exit(0);
    }
}
EOP
java -cp 'lib/*' Ask.java | tee seen
diff seen - <<'EOP'
"a": 1, "a"
"a b": 1, "a b"
["a","b"]: 2, "a" "b"
EOP
