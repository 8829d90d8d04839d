package matrix;

import java.util.Map;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;

/** Spring Authorization Server as Spring Boot sets it up; the clients and the person come from the environment. */
@SpringBootApplication
public class Server {

	public static void main(String[] arguments) {
		SpringApplication.run(Server.class, arguments);
	}

	/** The server knows names and passwords only: what the ID token says of a person is up to whoever runs it. */
	@Bean
	OAuth2TokenCustomizer<JwtEncodingContext> claims() {
		Map<String, String> claims = Map.of("email", System.getenv("PERSON_EMAIL"), "given_name",
				System.getenv("PERSON_GIVEN"), "family_name", System.getenv("PERSON_FAMILY"));
		return (context) -> {
			if (context.getTokenType().getValue().equals("id_token")) {
				context.getClaims().claims((all) -> all.putAll(claims));
			}
		};
	}

}
